"""How far apart images are."""

from __future__ import annotations

import numpy as np


def grey_levels(a: np.ndarray, b: np.ndarray) -> float:
    """The mean absolute difference of two sets of images, 0..255."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())
