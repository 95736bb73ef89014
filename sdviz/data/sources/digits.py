"""scikit-learn's handwritten digits, enlarged: a far-OOD set without a download."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from ..decode import resized
from ..imageset import ImageSet
from ..source import Choose, Source, row_ids
from ..stack import Reading

SPLIT = "test"
N_IMAGES = 1797
SOURCE_PX = 8
SIZE_PX = 32


@lru_cache(maxsize=1)
def _images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # slow to import, and few callers want it

    bunch = load_digits()
    weights = _linear_weights()
    # integers only, so the bytes are the same on every machine: 0..16 times 8 x 8 eighths is 0..1024
    level = weights @ bunch.images.astype(np.int64) @ weights.T
    grey = ((level * 255 + 512) // 1024).astype(np.uint8)
    images, labels = np.repeat(grey[..., None], 3, axis=-1), bunch.target.astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def _linear_weights() -> np.ndarray:
    """Weights in eighths, int64 (32,8), of linear interpolation between pixel centres; edges are repeated."""
    factor = SIZE_PX // SOURCE_PX
    eighths = np.clip(2 * np.arange(SIZE_PX) + 1 - factor, 0, 2 * factor * (SOURCE_PX - 1))
    left, share = eighths // (2 * factor), eighths % (2 * factor)
    weights = np.zeros((SIZE_PX, SOURCE_PX), np.int64)
    rows = np.arange(SIZE_PX)
    weights[rows, left] += 2 * factor - share
    weights[rows, np.minimum(left + 1, SOURCE_PX - 1)] += share
    return weights


class Digits(Source):
    """The digits in white on black, enlarged from 8x8 to 32x32 px by linear interpolation."""

    order = 1
    built_in = ("digits",)
    shades: Mapping[str, int] = {"digits": 4}

    def splits(self, name: str) -> tuple[str, ...]:
        return (SPLIT,)

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        images, labels = _images_and_labels()
        rows = choose(N_IMAGES)
        ids = row_ids(self.id_prefix(name, split), rows)
        return ImageSet(
            name, split, resized(images[rows], reading.size_px), labels[rows], ids, tuple("0123456789"), 0.0
        )

    def count(self, name: str, split: str) -> int:
        return N_IMAGES


SOURCE = Digits()
