"""Compares scores with ID scores: percentiles, the threshold, the table of scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..detection.score import Scores


@dataclass(frozen=True, eq=False)
class OODReference:
    """Held-out ID scores and their threshold."""

    id_scores: np.ndarray  # float64 (N,), ascending
    threshold: float  # the largest score that is called ID
    id_recall: float | None  # in %, that the threshold was chosen by; None for one given as a number

    @property
    def name(self) -> str:
        """What the threshold is, in words."""
        return "the bundle's threshold" if self.id_recall is None else f"{self.id_recall:g} % ID recall"

    def quantile(self, scores: np.ndarray) -> np.ndarray:
        """The share of ID scores below each score, float64 (M,), 0..1."""
        scores = _finite("scores", scores)
        return np.searchsorted(self.id_scores, scores, side="left") / len(self.id_scores)

    def percentile(self, scores: np.ndarray) -> np.ndarray:
        """The same in %: "more OOD than 97 % of ID"."""
        return 100 * self.quantile(scores)

    def flag(self, scores: np.ndarray) -> np.ndarray:
        """Which scores are above the threshold, bool (M,): these are called OOD."""
        return _finite("scores", scores) > self.threshold


def ood_reference(
    id_scores: np.ndarray, id_recall: float = 95.0, threshold: float | None = None
) -> OODReference:
    """Makes a reference of held-out ID scores.

    Args:
        id_scores: (N,), higher is more OOD.
        id_recall: In %, as for `id_recall_threshold`.
        threshold: A threshold to use instead of the one at `id_recall`.

    Raises:
        ValueError: No scores, or NaN or infinite ones.

    Example:
        >>> reference = ood_reference(np.arange(100))
        >>> reference.threshold, reference.percentile(np.array([97])).tolist()
        (94.0, [97.0])
    """
    id_scores = _finite("ID scores", id_scores)
    if threshold is not None:
        return OODReference(np.sort(id_scores), threshold, None)
    return OODReference(np.sort(id_scores), id_recall_threshold(id_scores, id_recall), id_recall)


def id_recall_threshold(id_scores: np.ndarray, recall: float = 95.0) -> float:
    """The smallest ID score that at least `recall` % of the ID scores do not exceed.

    Args:
        id_scores: (N,), finite.
        recall: Above 0, up to 100, rounded to hundredths.

    Example:
        >>> id_recall_threshold(np.arange(100), 90)
        89.0
    """
    ordered = np.sort(_finite("ID scores", id_scores))
    # ceil(recall N / 100) in whole numbers, because 0.95 is not exact as a float
    passing = -(-round(recall * 100) * len(ordered) // 10_000)
    return float(ordered[max(passing, 1) - 1])


def score_table(
    ids: np.ndarray, paths: Sequence[str], scores: Scores, bank_ids: np.ndarray, reference: OODReference
) -> pa.Table:
    """Makes the table of scores, one row per image.

    Args:
        ids: str (N,).
        paths: N, the file of each image, "" for none.
        scores: Of `SDScore.score`, N rows.
        bank_ids: str (M,), of the ID bank, in its order.
        reference: Of the held-out ID images' total scores.

    Returns:
        Columns: id; path; score, the total of Eq. 6; distance; votes; nearest_ids, a list of the k nearest of
        the ID bank; quantile, the share of ID images that are less OOD, 0..1; threshold; verdict, "OOD" above
        the threshold, else "ID".

    Raises:
        ValueError: Columns that do not fit, or scores that are not finite.
    """
    total = _finite("scores", scores.total)
    nearest = np.asarray(scores.id_indices)
    if len(ids) != len(total) or len(paths) != len(total) or len(nearest) != len(total):
        raise ValueError(
            f"{len(ids)} ids, {len(total)} scores and {len(nearest)} rows of neighbours do not fit"
        )
    if nearest.size and not 0 <= nearest.min() <= nearest.max() < len(bank_ids):
        raise ValueError(f"a neighbour lies outside the ID bank of {len(bank_ids)} images")
    names = np.asarray(bank_ids, str)
    return pa.table(
        {
            "id": pa.array(np.asarray(ids, str).tolist(), pa.string()),
            "path": pa.array(paths, pa.string()),
            "score": total,
            "distance": np.asarray(scores.distance, np.float64),
            "votes": np.asarray(scores.votes, np.int64),
            "nearest_ids": pa.array([names[row].tolist() for row in nearest], pa.list_(pa.string())),
            "quantile": reference.quantile(total),
            "threshold": np.full(len(total), reference.threshold),
            "verdict": np.where(reference.flag(total), "OOD", "ID").tolist(),
        }
    )


def _finite(what: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"{what} must be one non-empty column, not {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{what} hold NaN or infinite values")
    return scores
