"""kNN: the distance to the k-th nearest ID feature of unit length."""

from __future__ import annotations

import numpy as np

from .interface import Baseline, Images, OnProgress, Reference, wanted
from .neighbours import nearest_squares, unit


class KNN(Baseline):
    """The distance to the k-th nearest ID feature, all features of length 1.

    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors": r_k(z) = |z - z_(k)| with
    z = f(x) / |f(x)|; k = 50.
    """

    key, title, needs = "knn", "kNN", ("features",)

    def __init__(self, k: int = 50) -> None:
        """k: which neighbour; with fewer ID images the last there is."""
        self.k = k

    def fit(self, reference: Reference, on_progress: OnProgress | None = None) -> KNN:
        """Keeps the features at length 1."""
        self.check(reference)
        self._features = unit(wanted(self, "features", reference.known.features))
        self._ids = reference.known.ids
        return self

    def score(self, images: Images) -> np.ndarray:
        """Distances, float64 (N,)."""
        queries = unit(wanted(self, "features", images.features))
        k = min(self.k, max(1, len(self._features) - 1))
        return np.sqrt(nearest_squares(self.key, self._features, queries, k, self._ids, images.ids)[:, -1])
