"""DN2: the distance to the two nearest ID features, without fine-tuning."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ...detection.knn import unit_length
from ..interface import Baseline, OnProgress, Reference
from ..neighbours import check_neighbours, nearest_squares


class DN2(Baseline):
    """The sum of squared distances to the k = 2 nearest ID features.

    Bergman, Cohen and Hoshen 2020, "Deep Nearest Neighbor Anomaly Detection": sum_i |f(x) - f(x_i)|^2; f has
    unit length only if `normalize` is set.
    """

    key, title, needs = "dn2", "DN2", ("features",)

    class Settings(Baseline.Settings):
        k: int = Field(2, ge=1, description="neighbours that count")
        normalize: bool = Field(False, description="features of length 1")

    settings: Settings

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Keeps the features."""
        check_neighbours(self.key, self.settings.k, len(known))
        self._known, self._ids = self._features(known), reference.known.ids

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        return nearest_squares(
            self.key, self._known, self._features(queries), self.settings.k, self._ids, ids
        ).sum(1)

    def _features(self, features: np.ndarray) -> np.ndarray:
        return unit_length(features) if self.settings.normalize else features
