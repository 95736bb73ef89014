"""Histograms, ROC and precision-recall curves of scores, metrics of all sets, AUROC over k and alpha."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..detection import metrics
from ..evaluation.report import MeanMetrics, SetResult
from ..evaluation.sets import COLUMN_OF_MODE, mean_metrics, measure, outlier_log_odds
from .rescoring import Rescorer, SetScores
from .tables import Evidence, or_none

Scale = Literal["log", "near", "linear"]
MODES = ("both", "distance", "votes", "g_bin")
# end of the axis of the scale "near", in multiples of the threshold
NEAR_THRESHOLDS = 4.0
N_BINS = 80


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of scores by bin, for each set."""

    edges: np.ndarray  # float64 (B+1,), rising; scores outside count in the first or last bin
    counts: dict[str, np.ndarray]  # by set, int64 (B,), with the sum N
    is_log: bool  # whether the bins are equally wide in log10 of the score
    n_beyond: int  # number of scores above the last edge


def histogram(scores: Mapping[str, np.ndarray], threshold: float, scale: Scale = "log") -> Histogram:
    """Bins the scores of all sets on one axis.

    Args:
        scores: By set, (N,) each, from 0 up.
        threshold: For the scale "near".
        scale: "linear" spans all scores; "log" uses log10 of the score, or is "linear" if no score is above 0;
            "near" ends at four times the threshold and counts higher scores in the last bin.

    Raises:
        ValueError: No scores.
    """
    values = np.concatenate([np.zeros(0), *scores.values()])
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
        name: np.histogram(np.clip(one.astype(np.float64), low, high), edges)[0].astype(np.int64)
        for name, one in scores.items()
    }
    return Histogram(edges, counts, is_log, int((values > high).sum()))


def roc_curve(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve from (0, 0) to (1, 1), OOD positive, without the points inside straight lines.

    Equal scores make one slanted step, so the area by trapezoids is the AUROC.

    Args:
        id_scores: (N,), higher is more OOD.
        ood_scores: (M,).

    Returns:
        False and true positive rate, (P,) each, rising.
    """
    flagged_id, flagged_ood = _flagged(id_scores, ood_scores)
    x, y = np.concatenate([[0], flagged_id]), np.concatenate([[0], flagged_ood])
    dx, dy = np.diff(x), np.diff(y)
    # exact, as these are whole numbers
    bends = dx[:-1] * dy[1:] != dy[:-1] * dx[1:]
    keep = np.concatenate([[True], bends, [True]])
    return x[keep] / x[-1], y[keep] / y[-1]


def precision_recall_curve(
    id_scores: np.ndarray, ood_scores: np.ndarray, positive: Literal["ood", "id"] = "ood"
) -> tuple[np.ndarray, np.ndarray]:
    """The precision-recall curve as a staircase, whose area is the average precision.

    Points that add no positives are left out.

    Args:
        id_scores: (N,), higher is more OOD.
        ood_scores: (M,).
        positive: "ood", detected by high scores, or "id", by low scores.

    Returns:
        Recall (P,), falling from 1 to 0, and precision (P,), constant over the last step.
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
    """The numbers of ID and OOD images that score at least each distinct score, the highest first."""
    values = np.concatenate([np.asarray(id_scores, np.float64), np.asarray(ood_scores, np.float64)])
    distinct, ranks = np.unique(values, return_inverse=True)
    sides = np.split(ranks, [len(id_scores)])
    flagged_id, flagged_ood = (np.cumsum(np.bincount(side, minlength=len(distinct))[::-1]) for side in sides)
    return flagged_id, flagged_ood


@dataclass(frozen=True, eq=False)
class Results:
    """The metrics of Eq. 6 on each OOD set."""

    results: dict[str, SetResult]  # by OOD set
    means: dict[str, dict[str, MeanMetrics]]  # role -> mode -> means over the role's sets
    from_report: bool  # whether the numbers are those of report.json
    n_bootstrap: int  # resamples of the intervals


def results_of(evidence: Evidence, scores: Mapping[str, SetScores], bootstrap: int) -> Results:
    """Computes all metrics of each OOD set against the held-out ID images, by each mode.

    As in report.json, there is no mode "votes" without outliers in the bank, and no mode "g_bin" without the
    head's outputs.

    Args:
        scores: By set, for any settings of Eq. 6.
        bootstrap: Resamples of the AUROC intervals, 0 for none.

    Raises:
        MissingPart: No scores or no held-out ID images.
    """
    id_name = evidence.id_set.name
    modes = [mode for mode in COLUMN_OF_MODE if mode != "votes" or _has_outliers(evidence, scores)]
    results = {}
    for name, one in evidence.ood_sets.items():
        found = {}
        for mode in modes:
            id_scores, ood_scores = (getattr(scores[s], COLUMN_OF_MODE[mode]) for s in (id_name, name))
            found[mode] = measure(id_scores, ood_scores, bootstrap, seed=0)
        if has_g_bin(evidence):
            inside, outside = (outlier_log_odds(s.heads["g_bin"]) for s in (evidence.id_set, one))
            found["g_bin"] = measure(inside, outside, bootstrap, seed=0)
        role: Any = one.role
        results[name] = SetResult(role=role, split=_split(one.ids), n=len(one), modes=found)
    return Results(results, mean_metrics(results), False, bootstrap)


def reported(evidence: Evidence) -> Results:
    """Reads the metrics from report.json, for the bundle's own settings. Raises MissingPart: no report."""
    report = evidence.report
    return Results(dict(report.results), dict(report.means), True, report.bootstrap.n)


def k_alpha_map(
    rescorer: Rescorer, id_name: str, sets: Iterable[str], ks: Sequence[int], alphas: Sequence[float]
) -> np.ndarray:
    """Computes the mean AUROC of some OOD sets for each k and alpha of Eq. 6.

    Args:
        sets: Names of OOD sets, at least one.
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
        # distance and votes do not depend on alpha
        parts = {name: rescorer.neighbourhoods[name].scores(k, 0.0) for name in (id_name, *names)}
        for i, alpha in enumerate(alphas):
            total = {name: one.distance + alpha * one.votes for name, one in parts.items()}
            found[i, j] = np.mean([metrics.auroc(total[id_name], total[name]) for name in names])
    return found


def has_g_bin(evidence: Evidence) -> bool:
    """Whether the outputs of g_bin are kept for all sets."""
    return all("g_bin" in one.heads for one in evidence.sets.values())


def _has_outliers(evidence: Evidence, scores: Mapping[str, SetScores]) -> bool:
    banks = or_none(lambda: evidence.banks)
    return any(one.votes.any() for one in scores.values()) if banks is None else len(banks.outlier_features) > 0


def _split(ids: np.ndarray) -> str:
    """The split named in the ids of a set, "" if there is none."""
    parts = str(ids[0]).split("/") if len(ids) else []
    return parts[1] if len(parts) > 2 else ""
