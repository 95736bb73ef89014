"""MSP: minus the largest softmax probability of the cluster head."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from ..interface import Baseline


class MSP(Baseline):
    """Minus the largest softmax probability of the cluster head.

    Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
    Neural Networks": -max_c p(c | x).
    """

    key, title, needs = "msp", "MSP", ("logits",)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        return -np.exp(log_softmax(queries.astype(np.float64), axis=1)).max(1)
