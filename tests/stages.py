"""Helpers for tests of the stages of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdviz.config.reading import load_config
from sdviz.pipeline import Workspace, run_stages


def work_in(
    folder: Path, config_path: Path, *overrides: str, stop: Callable[[], bool] = lambda: False
) -> Workspace:
    """A folder and a configuration, ready for the stages."""
    folder.mkdir(exist_ok=True)
    return Workspace(folder, load_config(config_path, overrides), lambda progress: None, stop)


def begun(work: Workspace, until: str | None = None) -> list[tuple[str, bool]]:
    """Runs the stages: each with whether it was skipped."""
    told: list[tuple[str, bool]] = []
    run_stages(work, lambda stage, complete: told.append((stage, complete)), until)
    return told


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
