from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdviz.pipeline import Workspace
from tests.stages import work_in


@pytest.fixture
def copied(scored_run: Path, tmp_path: Path) -> Workspace:
    """A complete run of this test's own; its pictures are the other one's."""
    shutil.copytree(scored_run, tmp_path / "run")
    return work_in(tmp_path / "run", scored_run.parent / "tiny.yaml")
