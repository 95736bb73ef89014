"""What the pages that make outliers share: the values of S to try, and the clusters of pictures."""

from __future__ import annotations

import numpy as np

from sdviz.bundle import Bundle
from sdviz.ui.cache import DEVICE_LOCK


def s_values(max_s: int, count: int) -> list[int]:
    """`count` values of S from 0 to max_s, multiples of 5 where there is room."""
    return sorted(
        {int(round(v / 5) * 5) if max_s >= 5 * count else int(v) for v in np.linspace(0, max_s, count)}
    )


def clusters_of(bundle: Bundle, images: list[np.ndarray] | np.ndarray) -> np.ndarray:
    """The cluster that the bundle's clusterer sees in each picture, uint8 (H,W,3) each: int64 (N,)."""
    with DEVICE_LOCK:
        return bundle.pseudo_label(np.asarray(images))[0]
