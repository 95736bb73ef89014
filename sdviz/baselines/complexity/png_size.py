"""PNG size: the number of bits of an image as PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ..interface import Baseline, OnProgress, Reference


class PNGSize(Baseline):
    """The absolute difference between an image's PNG size and its mean over ID images.

    A check on all methods: sets that PNG size separates differ in texture, not only in meaning.
    """

    key, title, needs = "png_size", "PNG size", ("images",)

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Keeps the mean size of ID images."""
        self._mean = float(png_bits(known).mean())

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """How far the size is from that of ID images, float64 (N,), bits a pixel and channel."""
        return np.abs(png_bits(queries) - self._mean)


def png_bits(images: np.ndarray) -> np.ndarray:
    """Bits a pixel and channel of each image's PNG, float64 (N,); images are uint8 (N,H,W,3)."""
    sizes = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", optimize=True)
        sizes.append(8 * stream.tell() / image.size)
    return np.array(sizes, np.float64)
