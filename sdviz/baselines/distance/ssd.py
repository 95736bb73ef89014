"""SSD's score: the Mahalanobis distance to one Gaussian over the ID features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..interface import BaselineError, OnProgress, Reference
from ..neighbours import Distances, Normalize


class SSD(Distances):
    """The squared Mahalanobis distance of a feature to the ID features, all of length 1.

    Sehwag, Chiang and Mittal 2021, "SSD: A Unified Framework for Self-Supervised Outlier Detection", with one
    cluster, on this bundle's SimCLR encoder: (z - mu)^T Sigma^-1 (z - mu). The covariance is pseudo-inverted,
    so that directions without variance do not count.
    """

    key, title, needs = "ssd", "SSD (Mahalanobis)", ("features",)
    search: ClassVar = {"normalize": (False, True)}

    class Settings(Distances.Settings):
        normalize: Normalize = True

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Mean and covariance of the features."""
        features = self._measured(known).astype(np.float64)
        if len(features) < 2:
            raise BaselineError(f"{self.key}: a covariance needs at least 2 ID images")
        self._mean = features.mean(0)
        self._precision = np.linalg.pinv(np.cov(features, rowvar=False, bias=True), hermitian=True)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Squared distances, float64 (N,)."""
        centred = self._measured(queries).astype(np.float64) - self._mean
        return np.einsum("nd,de,ne->n", centred, self._precision, centred, optimize=True)
