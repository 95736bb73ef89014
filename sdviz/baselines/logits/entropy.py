"""Entropy: the entropy in nats of the cluster head's softmax."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from ..interface import Baseline


class Entropy(Baseline):
    """The entropy in nats of the cluster head's softmax.

    H(p) = -sum_c p(c | x) log p(c | x), Shannon 1948; a usual score beside MSP.
    """

    key, title, needs = "entropy", "Entropy", ("logits",)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        log_p = log_softmax(queries.astype(np.float64), axis=1)
        return -(np.exp(log_p) * log_p).sum(1)
