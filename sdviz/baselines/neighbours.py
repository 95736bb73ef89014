"""Distances between features: the settings that methods with distances share, and the nearest ID features."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ..detection.knn import NeighbourSearch, unit_length
from .interface import Baseline, BaselineError

Neighbours = Annotated[int, Field(ge=1, description="neighbours that count")]
Normalize = Annotated[bool, Field(description="features are brought to length 1 first")]


class Distances(Baseline):
    """A method that measures distances between features, as they are or at length 1."""

    class Settings(Baseline.Settings):
        """A method whose authors take features of length 1 has another default."""

        normalize: Normalize = False

    def _measured(self, features: np.ndarray) -> np.ndarray:
        """Features (N,D) as distances are measured between them."""
        return unit_length(features) if self.settings.normalize else features


class NearestSquares(Distances):
    """A method that scores by the sum of squared distances to the k nearest ID features."""

    class Settings(Distances.Settings):
        """k = 2 is that of DN2 and of all who score like it."""

        k: Neighbours = 2

    def _keep(self, features: np.ndarray, ids: np.ndarray | None) -> None:
        """Keeps the features of ID images, (N,D), and their ids."""
        self._known, self._ids = self._measured(features), ids

    def _sums(self, features: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        queries = self._measured(features)
        return nearest_squares(self.key, self._known, queries, self.settings.k, self._ids, ids).sum(1)


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
