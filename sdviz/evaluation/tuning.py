"""The same number of trials for every method: the settings to try, and the images to compare them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from ..data import permutation
from .report import Trial

Setting = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Split:
    """ID images in two parts: one that a trial is fitted on, and one that it is measured on.

    Attributes:
        fit: Rows of the ID images, int64 (N,).
        labels: The cluster of each, int64 (N,), numbered from 0 without a gap.
        inside: Other rows, which count as ID.
        outside: Other rows, which count as OOD: those of two clusters without an image in `fit`. None where
            validation sets are the OOD images.
    """

    fit: np.ndarray
    labels: np.ndarray
    inside: np.ndarray
    outside: np.ndarray | None = None


def draw_trials(
    space: Mapping[str, Sequence[object]], own: Mapping[str, object], n: int, seed: int
) -> list[Setting]:
    """At most n settings to try: a method's own first, then others drawn without repetition.

    Args:
        space: By name, the values to try.
        own: The method's own value of each.
    """
    first = {name: own[name] for name in space}
    every = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
    others = [one for one in every if one != first]
    order = permutation(len(others), seed)
    return [first, *(others[i] for i in order[: n - 1])]


def best_trial(trials: Sequence[Trial]) -> int:
    """The place of the trial with the highest value; the first of equals."""
    values = [-1.0 if one.value is None else one.value for one in trials]
    return int(np.argmax(values))


def validation_split(labels: np.ndarray, holdout: float, seed: int) -> Split:
    """A share of the ID images to measure on, the rest to fit on; labels are int64 (N,), 0..C-1."""
    order = permutation(len(labels), seed)
    n_held = min(len(labels) - 1, max(1, round(holdout * len(labels))))
    held, fit = np.sort(order[:n_held]), np.sort(order[n_held:])
    return Split(fit, _without_gaps(labels[fit]), held)


def left_out_splits(labels: np.ndarray, holdout: float, n_pairs: int, seed: int) -> list[Split]:
    """As `validation_split`, several times with two clusters as OOD, which are not fitted on.

    Raises:
        ValueError: Fewer than four clusters among the images to fit on and those to measure on.
    """
    whole = validation_split(labels, holdout, seed)
    clusters = np.intersect1d(labels[whole.fit], labels[whole.inside])
    if len(clusters) < 4:
        raise ValueError(
            f"evaluation.tuning: leaving two clusters out takes 4 with images on both sides, and there are"
            f" {len(clusters)}: raise holdout, or take criterion validation"
        )
    pairs = list(combinations(clusters.tolist(), 2))
    splits = []
    for i in permutation(len(pairs), seed)[:n_pairs]:
        known, is_id = (~np.isin(labels[rows], pairs[i]) for rows in (whole.fit, whole.inside))
        fit = whole.fit[known]
        splits.append(Split(fit, _without_gaps(labels[fit]), whole.inside[is_id], whole.inside[~is_id]))
    return splits


def _without_gaps(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
