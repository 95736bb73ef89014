"""Input complexity: bits by a likelihood, minus bits by a compressor."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib

import numpy as np
from PIL import Image

from ..interface import Baseline, BaselineError, OnProgress, Reference
from .png_size import png_bits


class InputComplexity(Baseline):
    """-log2 p(x) - L(x): L is the smallest size among several lossless compressors, both in bits a dimension.

    Serra et al. 2020, "Input Complexity and Out-of-distribution Detection with Likelihood-based Generative
    Models": S(x) = -log2 p(x) - L(x), both of the same picture x, here at a size of at most 16 px. p(x) is one
    Gaussian over the pixels of ID images, the simplest density; override `log2_likelihood` for a deep one.
    """

    key, title, needs = "input_complexity", "Input complexity (Gaussian)", ("images",)

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Fits mean and covariance of the pixels."""
        pixels = _rows(shrunk(known))
        if len(pixels) < 2:
            raise BaselineError(f"{self.key}: a covariance needs at least 2 ID images")
        self._mean = pixels.mean(0)
        # rounding to whole grey levels adds a variance of 1/12, which also keeps the matrix invertible
        covariance = np.cov(pixels, rowvar=False, bias=True) + np.eye(pixels.shape[1]) * (1 / 12 + 1e-3)
        self._factor = np.linalg.cholesky(covariance)

    def log2_likelihood(self, images: np.ndarray) -> np.ndarray:
        """log2 p(x) a dimension, float64 (N,), of images uint8 (N,H,W,3) of at most 16 px."""
        centred = _rows(images) - self._mean
        z = np.linalg.solve(self._factor, centred.T)
        d = centred.shape[1]
        log_p = -0.5 * (z**2).sum(0) - np.log(np.diag(self._factor)).sum() - 0.5 * d * np.log(2 * np.pi)
        return log_p / np.log(2) / d

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Bits a dimension, float64 (N,)."""
        small = shrunk(queries)
        return -self.log2_likelihood(small) - complexity_bits(small)


def complexity_bits(images: np.ndarray) -> np.ndarray:
    """Smallest size over PNG, WebP, zlib, bz2 and LZMA, in bits per pixel and channel, float64 (N,)."""
    best = png_bits(images)
    for row, image in enumerate(images):
        raw = image.tobytes()
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "WEBP", lossless=True, quality=100)
        sizes = [stream.tell(), len(zlib.compress(raw, 9)), len(bz2.compress(raw)), len(lzma.compress(raw))]
        best[row] = min(best[row], 8 * min(sizes) / image.size)
    return best


def shrunk(images: np.ndarray) -> np.ndarray:
    """Images uint8 (N,h,w,3), averaged over 2x2 squares until they are at most 16 px."""
    x = images.astype(np.float64)
    while x.shape[1] > 16 and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    return np.rint(x).astype(np.uint8)


def _rows(images: np.ndarray) -> np.ndarray:
    """Pixels, float64 (N,D)."""
    return images.reshape(len(images), -1).astype(np.float64)
