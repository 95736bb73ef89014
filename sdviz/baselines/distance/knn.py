"""kNN: the distance to the k-th nearest ID feature of unit length."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ...detection.knn import unit_length
from ..interface import Baseline, OnProgress, Reference
from ..neighbours import nearest_squares


class KNN(Baseline):
    """The distance to the k-th nearest ID feature, all features of length 1.

    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors": r_k(z) = |z - z_(k)| with
    z = f(x) / |f(x)|; k = 50.
    """

    key, title, needs = "knn", "kNN", ("features",)

    class Settings(Baseline.Settings):
        k: int = Field(50, ge=1, description="which neighbour; with fewer ID images the last there is")

    settings: Settings

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Keeps the features at length 1."""
        self._features = unit_length(known)
        self._ids = reference.known.ids

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Distances, float64 (N,)."""
        k = min(self.settings.k, max(1, len(self._features) - 1))
        return np.sqrt(
            nearest_squares(self.key, self._features, unit_length(queries), k, self._ids, ids)[:, -1]
        )
