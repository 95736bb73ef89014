"""Finds the points inside a region drawn on the page."""

from __future__ import annotations

import numpy as np


def project(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Projects points (N,d) on the page's two axes `onto` (2,d), float64 (N,2)."""
    return np.asarray(points.astype(np.float64) @ np.asarray(onto, np.float64).T)


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points (N,2) lie in a polygon (M,2), bool (N,), by the even-odd rule; none for M < 3.

    The polygon need not be closed and may cross itself.
    """
    found = np.zeros(len(points), bool)
    if len(polygon) < 3:
        return found
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    for (x_0, y_0), (x_1, y_1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y_0 == y_1:
            continue
        crosses = (y_0 > y) != (y_1 > y)
        found ^= crosses & (x < x_0 + (y - y_0) / (y_1 - y_0) * (x_1 - x_0))
    return found
