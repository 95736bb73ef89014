"""Agreement of clusters with known classes; for reports only, no setting is chosen by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ClusterAgreement:
    """How well clusters agree with classes.

    Attributes:
        accuracy: Share of images whose cluster is matched to their class, 0..1.
        nmi: Normalised mutual information, 0..1.
        ari: Adjusted Rand index, 0 by chance and 1 at best.
        matching: int64 (C,), the class of each cluster, -1 for one without.
        confusion: int64 (C, classes), images of each cluster and class.
    """

    accuracy: float
    nmi: float
    ari: float
    matching: np.ndarray
    confusion: np.ndarray
    n_images: int


def agreement(clusters: np.ndarray, classes: np.ndarray, n_clusters: int, n_classes: int) -> ClusterAgreement:
    """Matches clusters to classes one to one so that most images agree (Hungarian method).

    Args:
        clusters: int64 (N,), 0..C-1.
        classes: int64 (N,), -1 where unknown; such images do not count.

    Raises:
        ValueError: Columns of different length, a cluster or class out of range, or no known class.

    Example:
        >>> agreement(np.array([1, 1, 0]), np.array([0, 0, 1]), 2, 2).accuracy
        1.0
    """
    # slow to import
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if clusters.shape != classes.shape:
        raise ValueError(f"clusters {clusters.shape} and classes {classes.shape} do not fit")
    known = classes >= 0
    if not known.any():
        raise ValueError("no image with a known class to compare clusters with")
    clusters, classes = clusters[known], classes[known]
    for name, column, n in (("clusters", clusters, n_clusters), ("classes", classes, n_classes)):
        if column.min() < 0 or column.max() >= n:
            raise ValueError(f"{name} must lie in 0..{n - 1}, not {column.min()}..{column.max()}")
    confusion = np.zeros((n_clusters, n_classes), np.int64)
    np.add.at(confusion, (clusters, classes), 1)
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    matching = np.full(n_clusters, -1, np.int64)
    matching[rows] = columns
    return ClusterAgreement(
        float(confusion[rows, columns].sum() / len(classes)),
        float(normalized_mutual_info_score(classes, clusters)),
        float(adjusted_rand_score(classes, clusters)),
        matching,
        confusion,
        len(classes),
    )
