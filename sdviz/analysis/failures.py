"""Finds missed OOD images and false alarms, and groups them by class or cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..detection.score import SDScore
from .rescoring import SetScores
from .tables import ID_ROLES, Evidence, ScoredSet, or_none

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Failures:
    """Misjudged images, the largest margin first; ties are in the order of sets and rows."""

    sets: np.ndarray  # str (M,), names
    rows: np.ndarray  # int64 (M,), in the set
    ids: np.ndarray  # str (M,)
    scores: np.ndarray  # float64 (M,)
    margins: np.ndarray  # float64 (M,), |score - threshold|

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, keep: np.ndarray) -> Failures:
        """Selects rows by `keep`, bool (M,)."""
        return Failures(self.sets[keep], self.rows[keep], self.ids[keep], self.scores[keep], self.margins[keep])


@dataclass(frozen=True, eq=False)
class Rate:
    """Number and share of misjudged images in one group."""

    set: str
    name: str  # class or cluster
    wrong: int
    n: int

    @property
    def percent(self) -> float:
        """The share of misjudged images in percent, 0..100."""
        return 100 * self.wrong / self.n

    @property
    def at_least(self) -> float:
        """The lower end of the 95 % confidence interval of `percent` (Wilson score interval, 1927), 0..100."""
        p, z2 = self.wrong / self.n, 1.959964**2
        middle = p + z2 / (2 * self.n)
        half = math.sqrt(z2 * (p * (1 - p) / self.n + z2 / (4 * self.n**2)))
        return 100 * max(0.0, (middle - half) / (1 + z2 / self.n))


def is_wrong(one: ScoredSet, total: np.ndarray, threshold: float) -> np.ndarray:
    """Which images are misjudged, bool (N,). A score above the threshold means OOD."""
    flagged = total > threshold
    return flagged if one.role in ID_ROLES else ~flagged


def find_failures(
    sets: Mapping[str, ScoredSet], scores: Mapping[str, SetScores], threshold: float, false_alarms: bool
) -> Failures:
    """Finds the misjudged images of all sets.

    Args:
        scores: By set, for the settings in use.
        threshold: A score above it means OOD.
        false_alarms: Finds flagged ID images if True, else missed OOD images.
    """
    parts = []
    for name, one in sets.items():
        if (one.role in ID_ROLES) == false_alarms:
            total = scores[name].total
            rows = np.flatnonzero(is_wrong(one, total, threshold))
            parts.append((np.full(len(rows), name), rows, one.ids[rows], total[rows]))
    nothing = np.array([], str), np.array([], np.int64), np.array([], str), np.array([])
    names, rows, ids, totals = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    margins = np.abs(totals - threshold)
    worst = np.argsort(-margins, kind="stable")
    return Failures(names[worst], rows[worst], ids[worst], totals[worst], margins[worst])


def rates(name: str, groups: np.ndarray, wrong: np.ndarray) -> list[Rate]:
    """Rates of `wrong`, bool (N,), by `groups`, str (N,); the highest `Rate.at_least` first."""
    found = [
        Rate(name, str(group), int(wrong[groups == group].sum()), int((groups == group).sum()))
        for group in np.unique(groups)
    ]
    return sorted(found, key=lambda rate: (-rate.at_least, rate.name))


def recall_of(id_scores: np.ndarray, threshold: float) -> float:
    """The share of ID scores, float64 (N,) ascending, that are not above the threshold, in %."""
    return 100 * float(np.searchsorted(id_scores, threshold, side="right")) / len(id_scores)


def predicted_clusters(evidence: Evidence, one: ScoredSet) -> np.ndarray:
    """Predicts the cluster of each image: the largest output of g_in, else the cluster of the nearest ID image.

    Returns:
        int64 (N,), `UNKNOWN` if the bundle keeps neither logits nor features.
    """
    if "g_in" in one.heads:
        return np.asarray(one.heads["g_in"].argmax(1)).astype(np.int64)
    own, banks = evidence.bundle.manifest.score, or_none(lambda: evidence.banks)
    if one.features is None or own is None or banks is None:
        return np.full(len(one), UNKNOWN, np.int64)
    near = SDScore(1, 0.0, own.normalize).fit(banks.id_features, id_ids=banks.id_ids)
    return np.asarray(banks.id_labels[near.search(one.features, one.ids).id_indices[:, 0]])
