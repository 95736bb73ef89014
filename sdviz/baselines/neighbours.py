"""Distances to the nearest ID features."""

from __future__ import annotations

import numpy as np

from ..detection.knn import NeighbourSearch
from .interface import BaselineError


def check_neighbours(key: str, k: int, n: int) -> None:
    """Raises BaselineError for k neighbours of fewer ID images."""
    if n < k:
        raise BaselineError(f"{key}: {k} neighbours of {n} ID images: there are too few")


def nearest_squares(
    key: str,
    references: np.ndarray,
    queries: np.ndarray,
    k: int,
    reference_ids: np.ndarray | None = None,
    query_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Squared Euclidean distances to the k nearest references, ascending, float64 (N,k).

    A query (N,D) skips the references (M,D) of its own id. BaselineError if fewer than k are left.
    """
    own = reference_ids is not None and query_ids is not None
    if len(references) < k + own:
        perhaps = ", one of them perhaps the image itself" if own else ""
        raise BaselineError(f"{key}: {k} neighbours of {len(references)} ID images{perhaps}: there are too few")
    return NeighbourSearch(references, reference_ids).search(queries, int(k), query_ids)[0] ** 2
