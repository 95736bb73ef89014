from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdviz.config.nodes import ConfigError
from sdviz.config.reading import load_config


@pytest.fixture
def shapes_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {id: shapes}\n"
        "diffusion:\n"
        "  learning_rate: 8e-4\n"
        "  max_grad_norm: 3\n"
        "  unet: {channels: [8, 16]}\n"
    )
    return path


@pytest.fixture
def message() -> Callable[..., str]:
    """Reads a configuration that is refused; gives the one line that says why."""

    def refused(path: Path, *overrides: str) -> str:
        with pytest.raises(ConfigError) as error:
            load_config(path, overrides)
        text = str(error.value)
        assert "\n" not in text
        return text

    return refused
