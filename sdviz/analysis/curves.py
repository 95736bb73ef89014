"""Curves and counts of scores: histograms, ROC, precision and recall, and maps of AUROC over settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..detection import metrics
from ..evaluation.report import MeanMetrics, SetResult
from ..evaluation.sets import mean_metrics, measure
from .rescoring import Rescorer, SetScores
from .tables import Evidence, or_none

Scale = Literal["log", "near", "linear"]
MODES = ("both", "distance", "votes")
# where the axis of "near" ends, in multiples of the threshold
NEAR_THRESHOLDS = 4.0
N_BINS = 80


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many scores lie in each bin, set by set."""

    edges: np.ndarray  # float64 (B+1,), rising. Scores outside count in the first or the last bin.
    counts: dict[str, np.ndarray]  # by set, int64 (B,); each sums up to the size of its set
    is_log: bool  # whether the bins are equally wide in log10 of the score
    n_beyond: int  # how many scores lie above the last edge


def histogram(scores: Mapping[str, np.ndarray], threshold: float, scale: Scale = "log") -> Histogram:
    """Bins over all sets together.

    Args:
        scores: By set, (N,) each, at least one score in all; from 0 up.
        threshold: "near" shows what lies around it.
        scale: "log" for log10 of the score, equal to "linear" where there is no score above 0; "linear" from
            the lowest to the highest; "near" from the lowest to four thresholds, higher ones in the last bin.

    Raises:
        ValueError: No scores.
    """
    parts = [np.asarray(one, np.float64) for one in scores.values()]
    values = np.concatenate(parts) if parts else np.zeros(0)
    if not len(values):
        raise ValueError("no scores to draw a histogram of")
    low, high = float(values.min()), float(values.max())
    positive = values[values > 0]
    is_log = scale == "log" and len(positive) > 0
    if is_log:
        low = float(positive.min())
    elif scale == "near" and threshold > 0:
        high = min(high, NEAR_THRESHOLDS * threshold) if low < NEAR_THRESHOLDS * threshold else high
    if not low < high:  # one score, or all alike
        low, high = (low / 2, low * 2) if is_log else (low - 0.5, high + 0.5)
    edges = (np.geomspace if is_log else np.linspace)(low, high, N_BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace may miss its ends by a rounding
    counts = {
        name: np.histogram(np.clip(np.asarray(one, np.float64), low, high), edges)[0].astype(np.int64)
        for name, one in scores.items()
    }
    return Histogram(edges, counts, is_log, int((values > high).sum()))


def roc_curve(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve with OOD the positive class, from (0, 0) to (1, 1); points on a straight line are left out.

    Equal scores make one slanted step, so that the area by trapezoids is the AUROC.

    Args:
        id_scores: (N,), higher is more OOD.
        ood_scores: (M,).

    Returns:
        Share of ID flagged (P,) and share of OOD flagged (P,), both rising.
    """
    flagged_id, flagged_ood = _flagged(id_scores, ood_scores)
    x, y = np.concatenate([[0], flagged_id]), np.concatenate([[0], flagged_ood])
    dx, dy = np.diff(x), np.diff(y)
    # whole numbers: exact
    bends = dx[:-1] * dy[1:] != dy[:-1] * dx[1:]
    keep = np.concatenate([[True], bends, [True]])
    return x[keep] / x[-1], y[keep] / y[-1]


def precision_recall_curve(
    id_scores: np.ndarray, ood_scores: np.ndarray, positive: Literal["ood", "id"] = "ood"
) -> tuple[np.ndarray, np.ndarray]:
    """Precision over recall, as a staircase that keeps each precision down to the next lower recall.

    The area under that staircase is the average precision. Points that add no positives are left out.

    Args:
        id_scores: (N,), higher is more OOD.
        ood_scores: (M,).
        positive: "ood", found by high scores, or "id", found by low ones.

    Returns:
        Recall (P,), falling from 1 to 0, and precision (P,); the last is that of the first step.
    """
    if positive == "ood":
        wrong, right = _flagged(id_scores, ood_scores)
    else:
        wrong, right = _flagged(-np.asarray(ood_scores, np.float64), -np.asarray(id_scores, np.float64))
    adds = np.diff(right, prepend=0) > 0
    wrong, right = wrong[adds], right[adds]
    precision = right / (right + wrong)
    recall = right / right[-1]
    return np.concatenate([recall[::-1], [0.0]]), np.concatenate([precision[::-1], precision[:1]])


def _flagged(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many ID and OOD images score at least each of the distinct scores, from the highest down."""
    values = np.concatenate([np.asarray(id_scores, np.float64), np.asarray(ood_scores, np.float64)])
    distinct, ranks = np.unique(values, return_inverse=True)
    n = len(id_scores)
    sides = (ranks[:n], ranks[n:])
    found = [np.cumsum(np.bincount(side, minlength=len(distinct))[::-1]) for side in sides]
    return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Results:
    """The metrics of one score of Eq. 6 on each OOD set."""

    results: dict[str, SetResult]  # by OOD set
    means: dict[str, dict[str, MeanMetrics]]  # role -> mode -> means over its sets
    from_report: bool  # whether the numbers are report.json's, else they were computed now
    n_bootstrap: int  # resamples of the intervals


def results_of(evidence: Evidence, scores: Mapping[str, SetScores], bootstrap: int) -> Results:
    """Every metric of every OOD set against the held-out ID images, by each mode.

    Without outliers in the bank there is no mode "votes", as in report.json.

    Args:
        scores: Eq. 6 of every set, under any settings.
        bootstrap: Resamples of the AUROC intervals, 0 for none.

    Raises:
        MissingPart: No scores or no held-out ID images.
    """
    id_name = evidence.id_set.name
    columns = {"distance": "distance", "votes": "votes", "both": "total"}
    if not _has_outliers(evidence, scores):
        del columns["votes"]
    results = {
        name: SetResult(
            role=one.role,  # type: ignore[arg-type]
            split=_split(one.ids),
            n=len(one),
            modes={
                mode: measure(
                    np.asarray(getattr(scores[id_name], column), np.float64),
                    np.asarray(getattr(scores[name], column), np.float64),
                    bootstrap,
                    seed=0,
                )
                for mode, column in columns.items()
            },
        )
        for name, one in evidence.ood_sets.items()
    }
    return Results(results, mean_metrics(results), False, bootstrap)


def reported(evidence: Evidence) -> Results:
    """The same from report.json, by the bundle's own settings. Raises MissingPart: there is none."""
    report = evidence.report
    return Results(dict(report.results), dict(report.means), True, report.bootstrap.n)


def k_alpha_map(
    rescorer: Rescorer, id_name: str, sets: Iterable[str], ks: Sequence[int], alphas: Sequence[float]
) -> np.ndarray:
    """AUROC of Eq. 6 over k and alpha, the mean over some sets.

    Args:
        sets: OOD sets, at least one.
        ks: Each 1..`rescorer.max_k`.
        alphas: From 0 up.

    Returns:
        float64 (alphas, ks), 0..1.
    """
    names = list(sets)
    if not names:
        raise ValueError("no set to measure on")
    found = np.empty((len(alphas), len(ks)))
    for j, k in enumerate(ks):
        # one search of the k nearest serves every alpha
        parts = {name: rescorer.neighbourhoods[name].scores(k, 0.0) for name in (id_name, *names)}
        for i, alpha in enumerate(alphas):
            total = {name: one.distance + alpha * one.votes for name, one in parts.items()}
            found[i, j] = np.mean([metrics.auroc(total[id_name], total[name]) for name in names])
    return found


def _has_outliers(evidence: Evidence, scores: Mapping[str, SetScores]) -> bool:
    banks = or_none(lambda: evidence.banks)
    return any(one.votes.any() for one in scores.values()) if banks is None else len(banks.outlier_features) > 0


def _split(ids: np.ndarray) -> str:
    """What ids of a set say about its split, "" where they say nothing."""
    parts = str(ids[0]).split("/") if len(ids) else []
    return parts[1] if len(parts) > 2 else ""
