"""DN2: the distance to the two nearest ID features of a network that nobody fine-tuned."""

from __future__ import annotations

import numpy as np

from ..interface import Baseline, OnProgress, Reference, check_settings
from ..neighbours import check_neighbours, nearest_squares


class DN2(Baseline):
    """The sum of squared distances to the k = 2 nearest ID features, as they are.

    Bergman, Cohen and Hoshen 2020, "Deep Nearest Neighbor Anomaly Detection": sum_i |f(x) - f(x_i)|^2, f raw.
    """

    key, title, needs = "dn2", "DN2", ("features",)

    def __init__(self, k: int = 2) -> None:
        """k: neighbours that count."""
        check_settings(self.key, k=k)
        self.k = k

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Keeps the features."""
        check_neighbours(self.key, self.k, len(known))
        self._known, self._ids = known, reference.known.ids

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        return nearest_squares(self.key, self._known, queries, self.k, self._ids, ids).sum(1)
