"""Compares scores with ID scores: percentiles, the threshold, the table of scores."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..detection.score import Scores


@dataclass(frozen=True, eq=False)
class OODReference:
    """Held-out ID scores and their threshold."""

    id_scores: np.ndarray  # float64 (N,), ascending
    threshold: float  # the largest score that is not flagged

    def percentile(self, scores: np.ndarray) -> np.ndarray:
        """The share of ID scores below each score, float64 (M,), in %: "more OOD than 97 % of ID"."""
        scores = _finite("scores", scores)
        return 100 * np.searchsorted(self.id_scores, scores, side="left") / len(self.id_scores)

    def flag(self, scores: np.ndarray) -> np.ndarray:
        """Which scores are above the threshold, bool (M,); their percentile is at least 95."""
        return _finite("scores", scores) > self.threshold


def ood_reference(id_scores: np.ndarray) -> OODReference:
    """Makes a reference of held-out ID scores.

    Args:
        id_scores: (N,), higher is more OOD.

    Raises:
        ValueError: No scores, or NaN or infinite ones.

    Example:
        >>> reference = ood_reference(np.arange(100))
        >>> reference.threshold, reference.percentile(np.array([97])).tolist()
        (94.0, [97.0])
    """
    id_scores = _finite("ID scores", id_scores)
    return OODReference(np.sort(id_scores), id_recall_threshold(id_scores))


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


def score_table(ids: np.ndarray, scores: Scores, bank_ids: np.ndarray, reference: OODReference) -> pa.Table:
    """Makes the table of scores, one row per image.

    Args:
        ids: str (N,).
        scores: Of `SDScore.score`, N rows.
        bank_ids: str (M,), of the ID bank, in its order.
        reference: Of the held-out ID images' total scores.

    Returns:
        Columns: id; score, the total of Eq. 6; distance; votes; nearest_ids, the k nearest of the ID bank,
        joined by a space; percentile, the share of ID images in % that are less OOD; flag, above the threshold.

    Raises:
        ValueError: Columns that do not fit, or scores that are not finite.
    """
    total = _finite("scores", scores.total)
    nearest = np.asarray(scores.id_indices)
    if len(ids) != len(total) or len(nearest) != len(total):
        raise ValueError(
            f"{len(ids)} ids, {len(total)} scores and {len(nearest)} rows of neighbours do not fit"
        )
    if nearest.size and not 0 <= nearest.min() <= nearest.max() < len(bank_ids):
        raise ValueError(f"a neighbour lies outside the ID bank of {len(bank_ids)} images")
    names = np.asarray(bank_ids, str)
    return pa.table(
        {
            "id": pa.array(np.asarray(ids, str).tolist(), pa.string()),
            "score": total,
            "distance": np.asarray(scores.distance, np.float64),
            "votes": np.asarray(scores.votes, np.int64),
            "nearest_ids": pa.array([" ".join(names[row].tolist()) for row in nearest], pa.string()),
            "percentile": reference.percentile(total),
            "flag": reference.flag(total),
        }
    )


def _finite(what: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"{what} must be one non-empty column, not {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{what} hold NaN or infinite values")
    return scores
