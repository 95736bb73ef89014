from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdviz.bundle import Bundle


@pytest.fixture
def folder(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    """A sound bundle on disk."""
    tiny_bundle().save(tmp_path / "bundle")
    return tmp_path / "bundle"
