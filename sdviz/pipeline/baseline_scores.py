"""Stage `baseline_scores`: scores every set by the other methods, as their authors have them and as tuned.

Reads baselines/, tuning/, features/, the networks and the sets; writes baseline_scores/<key>.safetensors, one
float64 array (N,) for each set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from safetensors.numpy import load_file as load_arrays

from ..baselines.interface import OnProgress
from ..config.tree import BaselineConfig, RunConfig
from ..evaluation import BaselineScores
from ..evaluation.report import Trial
from . import features, tuning
from .baselines import Inputs, Stopped, fitted, own_settings, report_or_stop, weights_file
from .tuning import OURS, Tuned, tuned_methods
from .workspace import Metrics, Settings, Stage, Workspace, has_detector, write_arrays


@dataclass(frozen=True, eq=False)
class _Row:
    """One line of the tables, with what scores the sets."""

    key: str
    title: str
    settings: dict[str, Any]
    scores: Callable[[OnProgress], dict[str, np.ndarray]]
    trials: tuple[Trial, ...] = ()


def depends_on(config: RunConfig) -> Settings:
    """Methods, trials, detectors and sets."""
    return tuning.depends_on(config) | features.depends_on(config)


def make(work: Workspace) -> Metrics | None:
    """Scores the sets by each method; one that has its file already is skipped."""
    out, rows = work.stage_folder("baseline_scores"), _rows(work)
    for i, row in enumerate(rows):
        path = out / f"{row.key}.safetensors"
        if path.is_file():
            continue
        try:
            write_arrays(path, row.scores(report_or_stop(work, "baseline_scores", i, len(rows))))
        except Stopped:
            return None
    return {"scored_methods": len(rows)}


def read_scores(work: Workspace) -> list[BaselineScores]:
    """The scores of all methods in the order of the tables, with the settings that are not defaults."""
    return [
        BaselineScores(
            row.key,
            row.title,
            row.settings,
            load_arrays(work.folder / "baseline_scores" / f"{row.key}.safetensors"),
            row.trials,
        )
        for row in _rows(work)
    ]


def _rows(work: Workspace) -> list[_Row]:
    """Ours as tuned, then every method, each as its authors have it and as tuned."""
    inputs = Inputs(work)
    tuned = {one.of: one for one in tuned_methods(work, inputs)}
    found = [_tuned_row(tuned[OURS])] if tuned else []
    for one in work.config.evaluation.baselines:
        found.append(_Row(one.key, one.title, own_settings(one), partial(_plain_scores, inputs, one)))
        if one.key in tuned:
            found.append(_tuned_row(tuned[one.key]))
    return found


def _tuned_row(one: Tuned) -> _Row:
    return _Row(one.key, one.title, dict(one.own) | one.best(), one.scores, tuple(one.made()))


def _plain_scores(inputs: Inputs, one: BaselineConfig, on_progress: OnProgress) -> dict[str, np.ndarray]:
    return inputs.scores(fitted(inputs, one, weights_file(inputs.work, one), on_progress), one)


STAGE = Stage(
    make,
    depends_on,
    title="Scores of other methods",
    is_wanted=lambda config: (
        has_detector(config) and (bool(config.evaluation.baselines) or config.evaluation.tuning is not None)
    ),
    reads_sets=True,
)
