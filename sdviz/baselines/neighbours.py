"""Distances to the nearest ID features, for the methods that score by them."""

from __future__ import annotations

import faiss
import numpy as np

from .interface import BaselineError


def unit(features: np.ndarray) -> np.ndarray:
    """Features of length 1, float32 (N,D); one of length 0 stays as it is."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return (features / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def check_neighbours(key: str, k: int, n: int) -> None:
    """Refuses k neighbours where there are only n ID images.

    Raises:
        BaselineError: n is below k.
    """
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

    Args:
        key: Of the method, for errors.
        references: float32 (M,D).
        queries: float32 (N,D).
        k: How many.
        reference_ids: str (M,); a query of the same id passes over its row.
        query_ids: str (N,).

    Raises:
        BaselineError: Fewer than k references.
    """
    # the distances are taken again from the differences: faiss's own lose the small ones
    own = reference_ids is not None and query_ids is not None
    spare = 1 if own else 0
    if len(references) < k + spare:
        perhaps = ", one of them perhaps the image itself" if own else ""
        raise BaselineError(f"{key}: {k} neighbours of {len(references)} ID images{perhaps}: there are too few")
    index = faiss.IndexFlatL2(references.shape[1])
    index.add(np.ascontiguousarray(references, np.float32))
    n_candidates = min(len(references), int(k) + spare + 8)
    _, rows = index.search(np.ascontiguousarray(queries, np.float32), n_candidates)
    squares = np.empty(rows.shape, np.float64)
    for first in range(0, len(queries), 1024):
        part = slice(first, first + 1024)
        difference = queries[part, None, :].astype(np.float64) - references[rows[part]]
        squares[part] = (difference**2).sum(2)
    if own:
        assert reference_ids is not None and query_ids is not None
        squares[reference_ids[rows] == np.asarray(query_ids)[:, None]] = np.inf
    return np.sort(squares, axis=1)[:, :k]
