"""The registry of stages, and what runs them in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..config.tree import RunConfig
from ..files import FORMAT_VERSION, write_atomically
from . import (
    backbone,
    baselines,
    bundle,
    clusterer,
    controls,
    detector,
    diffusion,
    encoder,
    evaluation,
    features,
    outliers,
    pseudo_labels,
    sd_test,
)
from .planning.order import stage_names
from .planning.preflight import check_run
from .workspace import Metrics, PipelineError, Settings, Workspace, from_main, is_main_process, tree_hash


class Stage(Protocol):
    """What the module of a stage has."""

    __name__: str

    def make(self, work: Workspace) -> Metrics | None:
        """Does the work in the run's folder; what it measured, or None if it was stopped."""
        ...

    def depends_on(self, config: RunConfig) -> Settings:
        """The part of the configuration that the stage's result depends on, as a plain tree."""
        ...


_MODULES: tuple[Stage, ...] = (
    encoder,
    pseudo_labels,
    clusterer,
    diffusion,
    outliers,
    sd_test,
    backbone,
    detector,
    features,
    controls,
    baselines,
    evaluation,
    bundle,
)
# a stage has the name of its module; `planning.order` says which of them a run has
STAGES = {one.__name__.rpartition(".")[2]: one for one in _MODULES}
# under `accelerate launch` all processes work at these; the main one alone does the rest
_SHARED = {"diffusion", "outliers", "sd_test"}


def config_hash(config: RunConfig, stage: str = "bundle") -> str:
    """SHA-256 of the part of the configuration that a stage depends on; the device is in none."""
    return tree_hash({"format_version": FORMAT_VERSION} | STAGES[stage].depends_on(config))


def run_stages(
    work: Workspace, on_stage: Callable[[str, bool], None] | None = None, until: str | None = None
) -> bool:
    """Runs every stage that is not complete yet; whether all are complete now.

    Under `accelerate launch` the processes share the diffusion training and the making of outliers; the main
    one does the rest, and its decisions hold for all.

    Args:
        on_stage: Told of each stage before it starts, and whether it is skipped as complete.
        until: The last stage to run; None runs all.

    Raises:
        PipelineError: A stage was completed under another configuration, or there is no stage `until`.
    """
    main, names, checked = is_main_process(), stage_names(work.config), False
    if until is not None and until not in names:
        raise PipelineError(f"no stage {until!r} in this run; it has {', '.join(names)}")
    for name in names:
        marker = _marker(work.folder, name)
        wanted = config_hash(work.config, name)
        if from_main(marker.is_file(), work.config.device):
            if _hash_in(marker) != wanted:
                raise PipelineError(f"{work.folder}: stage {name} was made with another configuration")
            if on_stage is not None:
                on_stage(name, True)
            if name == until and name != names[-1]:
                return False
            continue
        if from_main(work.should_stop(), work.config.device):
            return False
        if on_stage is not None:
            on_stage(name, False)
        if main and not checked:
            check_run(work.config, names[names.index(name) :], len(work.images))
            checked = True
        metrics = STAGES[name].make(work) if main or name in _SHARED else None
        if main and metrics is not None:
            text = json.dumps({"config_sha256": wanted, "metrics": metrics}, indent=1)
            write_atomically(marker, text + "\n")
            # the resume state is several times as large as what the stage made
            for state in (work.folder / name).rglob("*state.pt"):
                state.unlink()
        # the other processes wait here until the marker is written
        if not from_main(metrics is not None, work.config.device):
            return False
        if name == until and name != names[-1]:
            return False
    return True


def adopt_stages(folder: Path, other: Path, config: RunConfig) -> list[str]:
    """Copies the complete stages of another run that this configuration would make alike."""
    taken = []
    for name in stage_names(config):
        marker, own = _marker(other, name), _marker(folder, name)
        if not marker.is_file() or own.exists() or _hash_in(marker) != config_hash(config, name):
            continue
        if (other / name).is_dir():
            shutil.copytree(other / name, folder / name, dirs_exist_ok=True)
        write_atomically(own, marker.read_bytes())
        taken.append(name)
    return taken


def _marker(folder: Path, stage: str) -> Path:
    """The file that says that a stage is complete."""
    return folder / f"{stage}.done.json"


def _hash_in(marker: Path) -> str:
    return json.loads(marker.read_text("utf-8"))["config_sha256"]
