"""What one score means: its percentile among ID scores, and whether it is flagged."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..detection.score import Scores


@dataclass(frozen=True, eq=False)
class OODReference:
    """ID scores that other scores are compared with."""

    id_scores: np.ndarray  # float64 (N,), ascending
    threshold: float  # the largest score that is not flagged, see `id_recall_threshold`

    def percentile(self, scores: np.ndarray) -> np.ndarray:
        """How many % of the ID scores each score is ABOVE: "more OOD than 97 % of ID".

        An ID score that equals it does not count: a score that all ID images share is above 0 % of them.

        Args:
            scores: (M,).

        Returns:
            float64 (M,) in 0..100.
        """
        scores = _finite("scores", scores)
        return 100 * np.searchsorted(self.id_scores, scores, side="left") / len(self.id_scores)

    def flag(self, scores: np.ndarray) -> np.ndarray:
        """Which scores are above the threshold, bool (M,).

        The same as a percentile of at least 95, also where scores are equal.
        """
        return _finite("scores", scores) > self.threshold


def ood_reference(id_scores: np.ndarray) -> OODReference:
    """The reference that held-out ID scores make.

    Args:
        id_scores: (N,), of ID images that are not in the bank; higher is more OOD.

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
    """The smallest of the ID scores that at least `recall` % of them do not exceed.

    Args:
        id_scores: (N,), finite.
        recall: Above 0, up to 100, counted in hundredths.

    Example:
        >>> id_recall_threshold(np.arange(100), 90)
        89.0
    """
    ordered = np.sort(_finite("ID scores", id_scores))
    # ceil(recall N) in whole numbers: 0.95 is not exact as a float
    passing = -(-round(recall * 100) * len(ordered) // 10_000)
    return float(ordered[max(passing, 1) - 1])


def score_table(ids: np.ndarray, scores: Scores, bank_ids: np.ndarray, reference: OODReference) -> pa.Table:
    """One row for each image: its score by Eq. 6, why, and what it means.

    Args:
        ids: str (N,), of the images.
        scores: Of `SDScore.score`, N rows.
        bank_ids: str (M,), of the ID bank, in its order.
        reference: From total scores of held-out ID images.

    Returns:
        id; score, the total of Eq. 6; distance; votes; nearest_ids, the k nearest of the ID bank, nearest
        first, joined by a space; percentile, the share of ID images in % that it is more OOD than; flag,
        above the threshold at 95 % ID recall.

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
