"""How far a layout can be believed."""

from __future__ import annotations

import numpy as np

from ..detection.knn import nearest_others

_ROWS_AT_ONCE = 256
MAX_QUERIES = 2_000


def trustworthiness(
    features: np.ndarray, points: np.ndarray, k: int = 10, max_queries: int = MAX_QUERIES
) -> float:
    """How many of a point's neighbours on the page are its neighbours in feature space (Venna & Kaski 2001).

    Neighbours that were far away cost as much as their rank lies beyond k. scikit-learn's function gives the
    same, by a table of all pairs; this one walks over blocks of rows and fits 10,000 points into memory. With
    more than `max_queries` points it looks at the neighbours of that many, evenly spaced, among all.

    Args:
        features: float (N,D).
        points: float (N,d).
        k: Neighbours looked at, lowered to what N allows: below N/2.
        max_queries: See above.

    Returns:
        0..1, 1 is best; NaN below 3 points, where it is not defined.
    """
    n = len(features)
    k = min(k, (n - 1) // 2)
    if k < 1:
        return float("nan")
    rows = np.arange(n) if n <= max_queries else np.linspace(0, n - 1, max_queries).astype(int)
    wide = features.astype(np.float64)
    lengths = np.einsum("ij,ij->i", wide, wide)
    near = nearest_others(points, k, rows)
    penalty = 0.0
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        block = slice(first, first + _ROWS_AT_ONCE)
        some = rows[block]
        in_space = lengths[some, None] - 2.0 * wide[some] @ wide.T + lengths[None]
        in_space[np.arange(len(some)), some] = np.inf
        reach = np.take_along_axis(in_space, near[block], axis=1)
        in_space.sort(axis=1)
        for ordered, wanted in zip(in_space, reach, strict=True):
            rank = np.searchsorted(ordered, wanted) + 1
            penalty += np.maximum(rank - k, 0).sum()
    return float(1.0 - penalty * 2.0 / (len(rows) * k * (2.0 * n - 3.0 * k - 1.0)))
