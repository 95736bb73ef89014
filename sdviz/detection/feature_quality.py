"""What training does to features, in two numbers that need no OOD image: collapse is seen while it happens."""

import numpy as np

from .knn import nearest_others, unit_length


def effective_rank(features: np.ndarray) -> float:
    """The number of directions that unit features (N,D) use, 1..min(N,D).

    The exponential of the entropy of the shares of variance along the principal axes: D where all directions
    have the same variance, 1 where one has all of it (Roy and Vetterli 2007). 0 for features that do not vary.
    """
    x = unit_length(features).astype(np.float64)
    x -= x.mean(0)
    variances = np.linalg.svd(x, compute_uv=False) ** 2
    if not variances.sum() > 1e-12 * len(x):
        return 0.0
    share = variances / variances.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def knn_accuracy(features: np.ndarray, labels: np.ndarray, k: int = 20) -> float:
    """The share of images (N,D) with the label that is most frequent among their k nearest others, 0..1.

    Of labels that are equally frequent the one of the nearest image counts.

    Args:
        labels: int64 (N,), 0 or more.

    Raises:
        ValueError: Fewer than 2 images.
    """
    n = len(features)
    if n < 2:
        raise ValueError(f"{n} images have no neighbours")
    near = labels[nearest_others(unit_length(features), min(k, n - 1))]
    counts = (near[:, :, None] == near[:, None, :]).sum(2)
    return float((near[np.arange(n), counts.argmax(1)] == labels).mean())
