"""Energy: minus the log of the summed exponentials of the cluster head's logits."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from ..interface import Baseline


class Energy(Baseline):
    """Minus the log of the summed exponentials of the cluster head's logits.

    Liu et al. 2020, "Energy-based Out-of-distribution Detection": E(x) = -T log sum_c exp(l_c(x) / T), T = 1.
    """

    key, title, needs = "energy", "Energy", ("logits",)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        return -logsumexp(queries.astype(np.float64), axis=1)
