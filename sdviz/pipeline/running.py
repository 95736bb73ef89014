"""Runs the stages of a run in order, and takes complete ones over from another run."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.tree import RunConfig
from ..files import write_atomically
from .planning.check import write_check
from .planning.preflight import check_overlap, check_run, jpeg_warning
from .stages import STAGES, config_hash, stage_names
from .workspace import PipelineError, Workspace, from_main, is_main_process, read_object

log = logging.getLogger(__name__)


def run_stages(
    work: Workspace, on_stage: Callable[[str, bool], None] | None = None, until: str | None = None
) -> bool:
    """Runs every stage that is not complete yet, and returns whether all are complete now.

    Under `accelerate launch` all processes work at the shared stages; the main process does the rest and
    decides for all of them.

    Args:
        on_stage: Called with each stage before it starts, and whether it is skipped as complete.
        until: The last stage to run; None runs all.

    Raises:
        PipelineError: A stage was completed under another configuration, or there is no stage `until`.
    """
    main, device, names, checked = is_main_process(), work.config.device, stage_names(work.config), False
    if until is not None and until not in names:
        raise PipelineError(f"no stage {until!r} in this run; it has {', '.join(names)}")
    work.metrics.clear()
    for name in names:
        marker, wanted = _marker(work.folder, name), config_hash(work.config, name)
        is_complete = from_main(marker.is_file(), device)
        if is_complete and _read(marker)["config_sha256"] != wanted:
            raise PipelineError(f"{work.folder}: stage {name} was made with another configuration")
        if not is_complete and from_main(work.should_stop(), device):
            return False
        if on_stage is not None:
            on_stage(name, is_complete)
        if not is_complete:
            if main and not checked:
                to_do = names[names.index(name) :]
                check_run(work.config, to_do, len(work.images))
                reads_sets = any(STAGES[one].reads_sets for one in to_do)
                warnings = write_check(work, reads_sets)
                warnings += check_overlap(work) if reads_sets else []
                if "outliers" in to_do and (warning := jpeg_warning(work.config, work.images)) is not None:
                    warnings.append(warning)
                for line in warnings:
                    log.warning(line)
                checked = True
            metrics = STAGES[name].make(work) if main or STAGES[name].is_shared else None
            if main and metrics is not None:
                text = json.dumps({"config_sha256": wanted, "metrics": metrics}, indent=1)
                write_atomically(marker, text + "\n")
                # the resume state is several times as large as the stage's result
                for state in (work.folder / name).rglob("*state.pt"):
                    state.unlink()
            # the other processes wait here until the marker is written
            if not from_main(metrics is not None, device):
                return False
        work.metrics.update(_read(marker)["metrics"])
        if name == until and name != names[-1]:
            return False
    return True


def adopt_stages(folder: Path, other: Path, config: RunConfig) -> list[str]:
    """Copies another run's complete stages whose settings are equal; returns their names."""
    taken = []
    for name in stage_names(config):
        marker, own = _marker(other, name), _marker(folder, name)
        if not marker.is_file() or own.exists() or _read(marker)["config_sha256"] != config_hash(config, name):
            continue
        if (other / name).is_dir():
            shutil.copytree(other / name, folder / name, dirs_exist_ok=True)
        write_atomically(own, marker.read_bytes())
        taken.append(name)
    return taken


def _marker(folder: Path, stage: str) -> Path:
    """The file that says that a stage is complete."""
    return folder / f"{stage}.done.json"


def _read(marker: Path) -> dict[str, Any]:
    return read_object(marker, "config_sha256", "metrics")
