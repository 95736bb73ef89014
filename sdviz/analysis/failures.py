"""Images on the wrong side of a threshold: OOD that was let through, ID that was flagged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..detection.score import SDScore
from .rescoring import SetScores
from .tables import Evidence, MissingPart, ScoredSet

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Failures:
    """Images called wrongly, worst first; of two that are equally wrong the earlier set and row."""

    sets: np.ndarray  # str (M,), the set of each
    rows: np.ndarray  # int64 (M,), its row there
    ids: np.ndarray  # str (M,)
    scores: np.ndarray  # float64 (M,)
    margins: np.ndarray  # float64 (M,), how far the score lies on the wrong side of the threshold, from 0 up

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, keep: np.ndarray) -> Failures:
        """Those that `keep`, bool (M,), picks, in the same order."""
        return Failures(self.sets[keep], self.rows[keep], self.ids[keep], self.scores[keep], self.margins[keep])


@dataclass(frozen=True, eq=False)
class Rate:
    """Number and share of wrongly judged images in one group."""

    set: str
    name: str  # of the class or cluster
    wrong: int
    n: int

    @property
    def percent(self) -> float:
        """0..100."""
        return 100 * self.wrong / self.n

    @property
    def at_least(self) -> float:
        """The lower end of Wilson's 95 % interval of `percent`, 0..100: few images leave it low.

        Wilson 1927, Probable inference, the law of succession, and statistical inference.
        """
        p, z2 = self.wrong / self.n, 1.959964**2
        middle = p + z2 / (2 * self.n)
        half = math.sqrt(z2 * (p * (1 - p) / self.n + z2 / (4 * self.n**2)))
        return 100 * max(0.0, (middle - half) / (1 + z2 / self.n))


def is_wrong(one: ScoredSet, total: np.ndarray, threshold: float) -> np.ndarray:
    """Which images are called wrongly, bool (N,): above the threshold is called OOD, at it is not."""
    flagged = total > threshold
    return flagged if one.role == "id" else ~flagged


def find_failures(
    sets: Mapping[str, ScoredSet], scores: Mapping[str, SetScores], threshold: float, false_alarms: bool
) -> Failures:
    """The failures of one kind.

    Args:
        scores: Eq. 6 of each, under the settings in use.
        threshold: A score above it is called OOD.
        false_alarms: ID images that are flagged; else OOD images that are let through.
    """
    parts = []
    for name, one in sets.items():
        if (one.role == "id") == false_alarms:
            total = scores[name].total
            rows = np.flatnonzero(is_wrong(one, total, threshold))
            parts.append((np.full(len(rows), name), rows, one.ids[rows], total[rows]))
    if not parts:
        nothing = np.array([])
        return Failures(
            nothing.astype(str), nothing.astype(np.int64), nothing.astype(str), nothing, nothing.copy()
        )
    names, rows, ids, totals = (np.concatenate([part[i] for part in parts]) for i in range(4))
    margins = np.abs(totals - threshold)
    worst = np.argsort(-margins, kind="stable")
    return Failures(names[worst], rows[worst], ids[worst], totals[worst], margins[worst])


def rates(name: str, groups: np.ndarray, wrong: np.ndarray) -> list[Rate]:
    """How often each of `groups`, str (N,), is called wrongly, bool (N,); the worst `Rate.at_least` first."""
    found = [
        Rate(name, str(group), int(wrong[groups == group].sum()), int((groups == group).sum()))
        for group in np.unique(groups)
    ]
    return sorted(found, key=lambda rate: (-rate.at_least, rate.name))


def recall_of(id_scores: np.ndarray, threshold: float) -> float:
    """The share of ID scores, float64 (N,) ascending, that are at most the threshold, 0..100."""
    return 100 * float(np.searchsorted(id_scores, threshold, side="right")) / len(id_scores)


def predicted_clusters(evidence: Evidence, one: ScoredSet) -> np.ndarray:
    """The cluster that the detector takes each image of a set for, right or wrong.

    The largest output of the head g_in; in a bundle without heads the cluster of the nearest ID image.

    Returns:
        int64 (N,), `UNKNOWN` where the bundle has neither.
    """
    if "g_in" in one.heads:
        return np.asarray(one.heads["g_in"].argmax(1)).astype(np.int64)
    own = evidence.bundle.manifest.score
    if one.features is None or own is None:
        return np.full(len(one), UNKNOWN, np.int64)
    try:
        banks = evidence.banks
    except MissingPart:
        return np.full(len(one), UNKNOWN, np.int64)
    near = SDScore(1, 0.0, own.normalize).fit(banks.id_features, id_ids=banks.id_ids)
    return np.asarray(banks.id_labels[near.search(one.features, one.ids).id_indices[:, 0]])
