"""Frechet distances between sets of features; FID is that of Inception features."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..nn.batches import in_batches
from ..nn.device import resolve_device
from ..text import LineError

INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
FID = "FID"
_BATCH_SIZE = 64


class InceptionError(LineError):
    """Inception features cannot be computed; the message is one line."""


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of the normal distributions fitted to a and b (Heusel et al. 2017, Eq. 6).

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), with covariances divided by N - 1.

    With C = Y^T Y for centred rows Y, tr (C_a C_b)^(1/2) is the sum of the singular values of Y_a Y_b^T. This
    needs no matrix root and is exact also for N <= D, where covariances have no full rank. Few samples make the
    distance too large: compare distances at equal N only.

    Args:
        a: float (N,D), N at least 2.
        b: float (M,D), M at least 2.

    Returns:
        At least 0.

    Raises:
        ValueError: Shapes that do not fit, fewer than two rows, NaN or infinite values.

    Example:
        >>> a = np.array([[0.0, 0.0], [2.0, 0.0]])
        >>> round(frechet_distance(a, a + [0.0, 3.0]), 6)
        9.0
    """
    # 1. means, and factors of the covariances
    (mean_a, factor_a), (mean_b, factor_b) = _fit("a", a), _fit("b", b)
    if len(mean_a) != len(mean_b):
        raise ValueError(f"features of length {len(mean_a)} and {len(mean_b)} have no distance")
    # 2. tr (C_a C_b)^(1/2)
    root = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    # 3. the distance, which rounding may bring below 0
    shift = ((mean_a - mean_b) ** 2).sum()
    return max(0.0, float(shift + (factor_a**2).sum() + (factor_b**2).sum() - 2 * root))


def _fit(name: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,), and R with at most D rows whose R^T R is the covariance (D,D)."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"{name}: features must be (N,D) with N at least 2, not {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: features hold NaN or infinite values")
    mean = x.mean(0)
    centred = (x - mean) / np.sqrt(len(x) - 1)
    return mean, np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def frechet_distances(
    train: np.ndarray,
    outliers: np.ndarray,
    reconstructions: np.ndarray | None = None,
    test: np.ndarray | None = None,
    source_rows: np.ndarray | None = None,
) -> dict[str, Any]:
    """Computes the distances of the tree `sdviz.evaluation.report.Frechet`.

    Args:
        train: float (N,D), features of the training images.
        outliers: float (M,D).
        reconstructions: float (L,D), of the images denoised under the right label.
        test: float (K,D), of held-out ID images.
        source_rows: int64 (M,), the row in train of each outlier's source.

    Raises:
        ValueError: As `frechet_distance`, or source rows that do not fit.
    """
    to_source = None
    if source_rows is not None:
        known = (source_rows >= 0) & (source_rows < len(train))
        if source_rows.shape != (len(outliers),) or not known.all():
            raise ValueError(f"source_rows {source_rows.shape} do not name a training image for each outlier")
        gap = np.asarray(outliers, np.float64) - np.asarray(train, np.float64)[source_rows]
        to_source = float(np.sqrt((gap**2).sum(1)).mean())
    sets = {"train": train, "outliers": outliers, "reconstructions": reconstructions, "test": test}
    rebuilt = None if reconstructions is None else frechet_distance(reconstructions, train)
    return {
        "n": {name: len(x) for name, x in sets.items() if x is not None},
        "outliers_to_train": frechet_distance(outliers, train),
        "reconstructions_to_train": rebuilt,
        "test_to_train": None if test is None else frechet_distance(test, train),
        "outliers_to_test": None if test is None else frechet_distance(outliers, test),
        "outliers_to_source": to_source,
    }


def distance_name(encoder: str) -> str:
    """The name of a distance on features of another encoder than Inception."""
    return f"FD ({encoder})"


def inception_features(
    images: np.ndarray, weights_path: str | Path, device: str | torch.device = "auto"
) -> np.ndarray:
    """Computes the pooled Inception features that FID is defined by, float32 (N,2048).

    The network is torch-fidelity's copy of that of 2015-12-05, which resizes as TensorFlow 1 did. Published
    FIDs compare 50,000 images with 50,000.

    Args:
        images: uint8 (N,H,W,3).
        weights_path: torch-fidelity's weights file; only tensors are read from it.

    Raises:
        InceptionError: torch-fidelity or the weights are missing, or the file is damaged or of another network.
    """
    path = Path(os.path.expanduser(weights_path))
    network = _inception(path).to(resolve_device(device))
    return in_batches(lambda pixels: network(pixels)[:1], images, device, _BATCH_SIZE)[0]


def check_inception(weights_path: str | Path) -> None:
    """Checks that the network can be built. Raises InceptionError: as `inception_features`."""
    _inception(Path(os.path.expanduser(weights_path)))


def _inception(path: Path) -> torch.nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise InceptionError("FID needs torch-fidelity: pip install torch-fidelity") from error
    if not path.is_file():
        raise InceptionError(f"no Inception weights at {path}: put the file of {INCEPTION_URL} there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise InceptionError(f"{path}: damaged, or holds more than weights") from error

    # the constructor unpickles its file, so it gets a copy that holds only the tensors
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=safe)
    except (RuntimeError, TypeError) as error:
        raise InceptionError(f"{path}: not the weights of torch-fidelity's Inception network") from error
