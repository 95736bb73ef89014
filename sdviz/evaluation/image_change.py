"""Measures of what an edit kept and what it changed."""

from __future__ import annotations

import numpy as np


def dilate(masks: np.ndarray, radius_px: int) -> np.ndarray:
    """Widens masks by a square of (2 radius + 1) px: the largest distance of row or column counts.

    Args:
        masks: bool (N,H,W).
        radius_px: At least 0.

    Returns:
        bool (N,H,W).
    """
    if radius_px < 0:
        raise ValueError(f"radius_px {radius_px} is below 0")
    wide = np.array(masks, bool)
    for axis in (1, 2):
        source = wide.copy()
        for shift in range(1, radius_px + 1):
            low = [slice(None)] * 3
            high = [slice(None)] * 3
            low[axis], high[axis] = slice(None, -shift), slice(shift, None)
            wide[tuple(high)] |= source[tuple(low)]
            wide[tuple(low)] |= source[tuple(high)]
    return wide


def background_psnr(
    original: np.ndarray, edited: np.ndarray, masks: np.ndarray, widen_px: int = 2
) -> np.ndarray:
    """Peak signal-to-noise ratio outside the object, 10 log10(255^2 / mean squared error), per image.

    Args:
        original: uint8 (N,H,W,3).
        edited: uint8, as original.
        masks: bool (N,H,W), True on the object.
        widen_px: How far the mask is widened first, so that the object's soft edge does not count.

    Returns:
        float64 (N,) in dB; inf where not one background pixel changed, nan where there is no background.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> a = np.zeros((1, 8, 8, 3), np.uint8)
        >>> float(background_psnr(a, a + 255, np.zeros((1, 8, 8), bool))[0])
        0.0
    """
    if original.shape != edited.shape or masks.shape != original.shape[:3]:
        raise ValueError(f"original {original.shape}, edited {edited.shape} and masks {masks.shape} do not fit")
    background = ~dilate(masks, widen_px)
    error = ((original.astype(np.float64) - edited.astype(np.float64)) ** 2).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mse = (error * background).sum((1, 2)) / background.sum((1, 2))
        return 10 * np.log10(255.0**2 / mse)


def share_changed(before: np.ndarray, after: np.ndarray) -> float:
    """Share of images that a judge calls something else than before, 0..1.

    Args:
        before: int (N,), what it called the originals.
        after: int (N,), what it calls the edits.
    """
    if before.shape != after.shape or len(before) == 0:
        raise ValueError(
            f"judgements must be two equal, non-empty columns, not {before.shape} and {after.shape}"
        )
    return float((before != after).mean())
