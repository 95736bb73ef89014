"""Tables and metrics of the other methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .report import BaselineResult, Trial
from .sets import Evaluation, mean_over_sets, measure


@dataclass(frozen=True, eq=False)
class BaselineScores:
    """The scores of one method."""

    key: str  # its name in files
    title: str  # its name for readers
    settings: Mapping[str, Any]  # from the configuration
    scores: Mapping[str, np.ndarray]  # by set, float64 (N,), higher is more OOD
    trials: tuple[Trial, ...] = ()  # that the settings were chosen from


def baseline_table(method: Evaluation, baselines: Sequence[BaselineScores]) -> pa.Table:
    """Joins the scores of all methods in one table.

    Args:
        method: Our own evaluation, which gives the rows.
        baselines: Scores of the same images.

    Returns:
        One row per image: set, role, id, and a float64 column for each method, named by its key.

    Raises:
        ValueError: A method did not score all images of all sets.
    """
    table = method.scores.select(["set", "role", "id"])
    names = table["set"].to_pylist()
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    for one in baselines:
        _check_sets(one, counts)
        column = np.concatenate([one.scores[name] for name in counts])
        table = table.append_column(one.key, pa.array(column, pa.float64()))
    return table


def baseline_report(method: Evaluation, one: BaselineScores, bootstrap: int, seed: int) -> dict[str, Any]:
    """Measures one method on each OOD set, as the tree `BaselineResult`.

    Args:
        method: Our own evaluation, over the same images.
        bootstrap: Resamples for the AUROC intervals, 0 for none.

    Raises:
        ValueError: The method did not score all images of all sets, or a score is NaN.
    """
    report = method.report
    id_name = report["id_set"]["name"]
    counts = {id_name: report["id_set"]["n"]} | {name: r["n"] for name, r in report["results"].items()}
    _check_sets(one, counts)
    results = {
        name: measure(one.scores[id_name], one.scores[name], bootstrap, seed) for name in report["results"]
    }
    roles = {name: r["role"] for name, r in report["results"].items()}
    means = mean_over_sets(results, roles)
    found = BaselineResult(
        title=one.title, settings=dict(one.settings), trials=one.trials, results=results, means=means
    )
    return found.model_dump(mode="json")


def _check_sets(one: BaselineScores, counts: Mapping[str, int]) -> None:
    for name, n in counts.items():
        if name not in one.scores:
            raise ValueError(f"{one.key} did not score {name}")
        if one.scores[name].shape != (n,):
            raise ValueError(f"{one.key}: scores {one.scores[name].shape} for the {n} images of {name}")
