"""kNN: the distance to the k-th nearest ID feature of unit length."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from ..interface import OnProgress, Reference
from ..neighbours import Distances, Normalize, nearest_squares


class KNN(Distances):
    """The distance to the k-th nearest ID feature, all features of length 1.

    Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors": r_k(z) = |z - z_(k)| with
    z = f(x) / |f(x)|; k = 50.
    """

    key, title, needs = "knn", "kNN", ("features",)
    search: ClassVar = {"k": (1, 5, 10, 20, 50, 100), "normalize": (False, True)}

    class Settings(Distances.Settings):
        k: Annotated[
            int, Field(ge=1, description="which neighbour; with fewer ID images the last there is")
        ] = 50
        normalize: Normalize = True

    settings: Settings

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Keeps the features."""
        self._known, self._ids = self._measured(known), reference.known.ids

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Distances, float64 (N,)."""
        k = min(self.settings.k, max(1, len(self._known) - 1))
        squares = nearest_squares(self.key, self._known, self._measured(queries), k, self._ids, ids)
        return np.sqrt(squares[:, -1])
