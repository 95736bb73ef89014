"""Measures what an outlier kept of its source image, and whether the object changed."""

import numpy as np
from scipy.ndimage import binary_dilation

# width of an object's soft edge outside its mask
_EDGE_PX = 2


def dilate(masks: np.ndarray, radius_px: int) -> np.ndarray:
    """Widens masks, bool (N,H,W), by `radius_px`, at least 0, in all directions, diagonals included."""
    if radius_px < 0:
        raise ValueError(f"radius_px {radius_px} is below 0")
    width = 2 * radius_px + 1
    return np.asarray(binary_dilation(masks, np.ones((1, width, width), bool)))


def background_psnr(original: np.ndarray, changed: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio outside the object, 10 log10(255^2 / mean squared error), per image.

    Args:
        original: uint8 (N,H,W,3).
        changed: uint8, as original.
        masks: bool (N,H,W), True on the object; they are widened by 2 px to leave out its soft edge.

    Returns:
        float64 (N,) in dB; inf for an unchanged background, nan for none.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> a = np.zeros((1, 8, 8, 3), np.uint8)
        >>> float(background_psnr(a, a + 255, np.zeros((1, 8, 8), bool))[0])
        0.0
    """
    if original.shape != changed.shape or masks.shape != original.shape[:3]:
        raise ValueError(
            f"original {original.shape}, changed {changed.shape} and masks {masks.shape} do not fit"
        )
    background = ~dilate(masks, _EDGE_PX)
    error = ((original.astype(np.float64) - changed.astype(np.float64)) ** 2).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mse = (error * background).sum((1, 2)) / background.sum((1, 2))
        return 10 * np.log10(255.0**2 / mse)


def share_changed(before: np.ndarray, after: np.ndarray) -> float:
    """The share of images whose class, int (N,), changed, 0..1. Raises ValueError: empty or unequal columns."""
    if before.shape != after.shape or len(before) == 0:
        raise ValueError(f"classes must be two equal, non-empty columns, not {before.shape} and {after.shape}")
    return float((before != after).mean())
