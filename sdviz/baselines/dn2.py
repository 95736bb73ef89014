"""DN2: the distance to the two nearest ID features of a network that nobody fine-tuned."""

from __future__ import annotations

import numpy as np

from .interface import Baseline, Images, OnProgress, Reference, wanted
from .neighbours import nearest_squares


class DN2(Baseline):
    """The sum of squared distances to the k = 2 nearest ID features, as they are.

    Bergman, Cohen and Hoshen 2020, "Deep Nearest Neighbor Anomaly Detection": sum_i |f(x) - f(x_i)|^2, f raw.
    """

    key, title, needs = "dn2", "DN2", ("features",)

    def __init__(self, k: int = 2) -> None:
        """k: neighbours that count."""
        self.k = k

    def fit(self, reference: Reference, on_progress: OnProgress | None = None) -> DN2:
        """Keeps the features."""
        self.check(reference)
        self._known = reference.known
        return self

    def score(self, images: Images) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        known = wanted(self, "features", self._known.features)
        queries = wanted(self, "features", images.features)
        return nearest_squares(self.key, known, queries, self.k, self._known.ids, images.ids).sum(1)
