"""Measures how well a layout keeps neighbours."""

from __future__ import annotations

import numpy as np

from ..detection.knn import nearest_others

_ROWS_AT_ONCE = 256
MAX_QUERIES = 2_000


def trustworthiness(features: np.ndarray, points: np.ndarray, k: int = 10) -> float:
    """The share of neighbours in the layout that are neighbours in feature space (Venna & Kaski 2001).

    A false neighbour costs its rank in feature space minus k. scikit-learn's function gives the same from a
    table of all pairs; this one works on blocks of rows, so that 10,000 points fit into memory. Of more than
    `MAX_QUERIES` points, it takes the neighbours of that many, evenly spaced.

    Args:
        features: float (N,D).
        points: float (N,d).
        k: Neighbours that count; at most (N-1)/2 are used.

    Returns:
        0..1, 1 is best; NaN below 3 points, where it is not defined.
    """
    n = len(features)
    k = min(k, (n - 1) // 2)
    if k < 1:
        return float("nan")
    rows = np.arange(n) if n <= MAX_QUERIES else np.linspace(0, n - 1, MAX_QUERIES).astype(int)
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
