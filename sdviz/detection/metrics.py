"""Measures how well scores tell OOD from ID. A higher score means more OOD.

Metrics depend only on the order of the scores, which may be infinite. All return a share, 0..1. Where an
ID and an OOD image have equal scores, AUROC counts half of the pair; the other metrics accept or flag both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def auroc(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """Area under the ROC curve, OOD the positive class: P(OOD scores above ID) + P(equal) / 2.

    Args:
        id_scores: (N,), any numbers but NaN, as in all functions of this module.
        ood_scores: (M,).

    Raises:
        ValueError: No scores on one side, another shape, or a NaN, as in all functions of this module.

    Example:
        >>> auroc([1, 2, 3, 4], [4, 9])
        0.9375
    """
    # slow to import
    from sklearn.metrics import roc_auc_score

    # of ranks, because scikit-learn takes no infinite scores
    id_ranks, ood_ranks, _ = _ranks(id_scores, ood_scores)
    is_ood = np.repeat([False, True], [len(id_ranks), len(ood_ranks)])
    return float(roc_auc_score(is_ood, np.concatenate([id_ranks, ood_ranks])))


def fpr_at_95_id_recall(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """Share of OOD images accepted as ID by the lowest threshold that accepts at least 95 % of ID.

    What ODIN and kNN-OOD call FPR95.

    Example:
        >>> fpr_at_95_id_recall([1, 2, 3, 4], [4, 5, 6, 7])
        0.25
    """
    return _fpr_at_95_recall(*_counts(id_scores, ood_scores))


def fpr_at_95_ood_recall(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """Share of ID images flagged by the highest threshold that flags at least 95 % of OOD.

    What OpenOOD calls FPR95.

    Example:
        >>> fpr_at_95_ood_recall([1, 2, 3, 4], [3, 5, 6, 7])
        0.5
    """
    id_counts, ood_counts = _counts(id_scores, ood_scores)
    return _fpr_at_95_recall(ood_counts[::-1], id_counts[::-1])


def aupr_out(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """Average precision with OOD the positive class; chance is the share of OOD images.

    The sum of precision times the step in recall over falling thresholds, as in scikit-learn, without
    interpolation.

    Example:
        >>> aupr_out([1, 3], [2, 4])
        0.8333333333333333
    """
    id_counts, ood_counts = _counts(id_scores, ood_scores)
    return _average_precision(ood_counts[::-1], id_counts[::-1])


def aupr_in(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """Average precision with ID the positive class, found by low scores; chance is the share of ID images.

    Example:
        >>> aupr_in([1, 3], [2, 4])
        0.8333333333333333
    """
    return _average_precision(*_counts(id_scores, ood_scores))


def bootstrap_interval(
    id_scores: npt.ArrayLike,
    ood_scores: npt.ArrayLike,
    n: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUROC from n resamples; ID and OOD images are resampled separately.

    Returns:
        (low, high), the middle 95 % of the resamples.

    Raises:
        ValueError: n below 1.

    Example:
        >>> bootstrap_interval([1, 2, 3], [4, 5, 6])
        (1.0, 1.0)
    """
    id_ranks, ood_ranks, n_ranks = _ranks(id_scores, ood_scores)
    rng = _rng(n, seed)
    values = np.empty(n)
    for i in range(n):
        id_counts = np.bincount(_resampled(id_ranks, rng), minlength=n_ranks)
        ood_counts = np.bincount(_resampled(ood_ranks, rng), minlength=n_ranks)
        values[i] = _auroc(id_counts, ood_counts)
    return _interval(values)


def paired_bootstrap_auroc_difference(
    id_a: npt.ArrayLike,
    ood_a: npt.ArrayLike,
    id_b: npt.ArrayLike,
    ood_b: npt.ArrayLike,
    n: int = 1000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """AUROC of detector a minus that of b on the same images, with its paired bootstrap interval.

    Each resample takes the same images for both, so that the difficulty of an image cancels out.

    Args:
        id_a: (N,), scores by a; row i is the same image as row i of `id_b`.
        id_b: (N,), scores by b.

    Returns:
        AUROC(a) - AUROC(b) on all images, and (low, high), the middle 95 % of the resamples.

    Raises:
        ValueError: Rows that do not pair, or n below 1.

    Example:
        >>> paired_bootstrap_auroc_difference([1, 2], [3, 4], [3, 4], [1, 2])
        (1.0, (1.0, 1.0))
    """
    *ranks_a, n_ranks_a = _ranks(id_a, ood_a)
    *ranks_b, n_ranks_b = _ranks(id_b, ood_b)
    for side, a, b in zip(("ID", "OOD"), ranks_a, ranks_b, strict=True):
        if len(a) != len(b):
            raise ValueError(f"{len(a)} {side} scores by a and {len(b)} by b are not of the same images")
    difference = auroc(id_a, ood_a) - auroc(id_b, ood_b)
    rng = _rng(n, seed)
    values = np.empty(n)
    for i in range(n):
        rows = [rng.integers(len(side), size=len(side)) for side in ranks_a]
        counts_a = [np.bincount(r[at], minlength=n_ranks_a) for r, at in zip(ranks_a, rows, strict=True)]
        counts_b = [np.bincount(r[at], minlength=n_ranks_b) for r, at in zip(ranks_b, rows, strict=True)]
        values[i] = _auroc(*counts_a) - _auroc(*counts_b)
    return difference, _interval(values)


# --------------------------------------------------------------------------------------------------
# From counts of the distinct scores
# --------------------------------------------------------------------------------------------------


def _auroc(id_counts: np.ndarray, ood_counts: np.ndarray) -> float:
    # counted in half pairs, because a tie is one half; the sum of whole numbers is exact
    below = 2 * np.cumsum(id_counts) - id_counts
    return float((ood_counts * below).sum() / (2 * id_counts.sum() * ood_counts.sum()))


def _fpr_at_95_recall(positives: np.ndarray, negatives: np.ndarray) -> float:
    # in whole numbers: in floats, 95 of 100 might be below 95 %
    accepted = np.cumsum(positives)
    threshold = int(np.argmax(20 * accepted >= 19 * accepted[-1]))
    return float(negatives[: threshold + 1].sum() / negatives.sum())


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    right = np.cumsum(positives)
    found = right + np.cumsum(negatives)
    step = positives > 0
    return float((positives[step] * (right[step] / found[step])).sum() / right[-1])


def _scores(name: str, values: npt.ArrayLike) -> np.ndarray:
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"{name} scores must be one row of at least one number, got shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"{name} scores: {int(np.isnan(scores).sum())} of {len(scores)} are NaN")
    return scores


def _ranks(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Rank of each image's score among the distinct scores, from 0, and the number of distinct scores."""
    known, unknown = _scores("ID", id_scores), _scores("OOD", ood_scores)
    distinct, ranks = np.unique(np.concatenate([known, unknown]), return_inverse=True)
    return ranks[: len(known)], ranks[len(known) :], len(distinct)


def _counts(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    id_ranks, ood_ranks, n_ranks = _ranks(id_scores, ood_scores)
    return np.bincount(id_ranks, minlength=n_ranks), np.bincount(ood_ranks, minlength=n_ranks)


def _rng(n: int, seed: int) -> np.random.Generator:
    if n < 1:
        raise ValueError(f"n = {n} resamples is below 1")
    return np.random.default_rng(seed)


def _resampled(ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ranks[rng.integers(len(ranks), size=len(ranks))]


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
