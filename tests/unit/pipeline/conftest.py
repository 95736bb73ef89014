from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdviz.config.reading import load_config
from sdviz.pipeline import Workspace
from tests.stages import work_in
from tests.tiny_runs import write_tiny_config


@pytest.fixture
def copied(scored_run: Path, tmp_path: Path) -> Workspace:
    """A complete run of this test's own; its pictures are the other one's."""
    shutil.copytree(scored_run, tmp_path / "run")
    return work_in(tmp_path / "run", scored_run.parent / "tiny.yaml")


def _pictures(folder: Path, suffix: str) -> Path:
    for name, colour in (("blue", (40, 60, 200)), ("red", (210, 50, 60))):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (colour[0] + i, *colour[1:])).save(folder / name / f"{i}{suffix}")
    return folder


@pytest.fixture
def work_on(tmp_path: Path) -> Callable[..., Workspace]:
    """Makes a workspace on six pictures, in files of the type that `suffix` names."""

    def make(suffix: str, *overrides: str) -> Workspace:
        path = write_tiny_config(tmp_path / "config")
        source = _pictures(tmp_path / suffix.strip("."), suffix)
        config = load_config(path, [f"data.id=folder:{source}", *overrides])
        return Workspace(tmp_path, config, lambda progress: None, lambda: False)

    return make
