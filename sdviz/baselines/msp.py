"""MSP: minus the largest softmax probability of the cluster head."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from .interface import Baseline, Images, OnProgress, Reference, wanted


class MSP(Baseline):
    """Minus the largest softmax probability of the cluster head.

    Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
    Neural Networks": -max_c p(c | x).
    """

    key, title, needs = "msp", "MSP", ("logits",)

    def fit(self, reference: Reference, on_progress: OnProgress | None = None) -> MSP:
        """Nothing to fit."""
        return self

    def score(self, images: Images) -> np.ndarray:
        """Scores, float64 (N,)."""
        return -np.exp(log_softmax(wanted(self, "logits", images.logits).astype(np.float64), axis=1)).max(1)
