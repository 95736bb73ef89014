"""DN2: the distance to the two nearest ID features, without fine-tuning."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..interface import OnProgress, Reference
from ..neighbours import NearestSquares, check_neighbours


class DN2(NearestSquares):
    """The sum of squared distances to the k = 2 nearest ID features, as they are.

    Bergman, Cohen and Hoshen 2020, "Deep Nearest Neighbor Anomaly Detection": sum_i |f(x) - f(x_i)|^2.
    """

    key, title, needs = "dn2", "DN2", ("features",)
    search: ClassVar = {"k": (1, 2, 5, 10, 20, 50), "normalize": (False, True)}

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Keeps the features."""
        check_neighbours(self.key, self.settings.k, len(known))
        self._keep(known, reference.known.ids)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        return self._sums(queries, ids)
