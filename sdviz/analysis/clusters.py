"""Facts about pseudo-label clusters: sizes, confidence, agreement with known classes."""

from dataclasses import dataclass

import numpy as np

from ..scan.metrics import ClusterAgreement, agreement
from .tables import PseudoLabels

_N_BINS = 20


@dataclass(frozen=True, eq=False)
class ClusterFacts:
    """Sizes, confidences and image order of C clusters."""

    sizes: np.ndarray  # int64 (C,), images in each cluster
    mean_confidence: np.ndarray  # float64 (C,), 0..1; NaN for an empty cluster
    order: tuple[np.ndarray, ...]  # rows of each cluster's images, int64, the most confident first
    rank: np.ndarray  # int64 (N,), place of each image in its cluster's order, from 0


@dataclass(frozen=True, eq=False)
class AgainstClasses:
    """Clusters compared with known classes."""

    class_names: tuple[str, ...]  # classes matched to a cluster first, in the order of the clusters
    matched: tuple[str, ...]  # class matched to each cluster, "" for none
    confusion: np.ndarray  # int64 (C, classes), columns as `class_names`
    agreement: ClusterAgreement


def cluster_facts(labels: PseudoLabels, n_clusters: int) -> ClusterFacts:
    """Counts and sorts the images of each cluster. Raises ValueError: a label outside 0..n_clusters-1."""
    y, confidence = labels.labels, labels.confidence.astype(np.float64)
    if len(y) and (y.min() < 0 or y.max() >= n_clusters):
        raise ValueError(f"pseudo-labels must lie in 0..{n_clusters - 1}, not {y.min()}..{y.max()}")
    sizes = np.bincount(y, minlength=n_clusters)
    sums = np.bincount(y, weights=confidence, minlength=n_clusters)
    mean = np.divide(sums, sizes, out=np.full(n_clusters, np.nan), where=sizes > 0)
    by_cluster = np.lexsort((-confidence, y))
    order = tuple(np.split(by_cluster, np.cumsum(sizes)[:-1]))
    rank = np.empty(len(y), np.int64)
    for rows in order:
        rank[rows] = np.arange(len(rows))
    return ClusterFacts(sizes, mean, order, rank)


def confidence_histogram(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins confidences (N,) over 0..1: edges float64 (21,) and counts int64 (20,)."""
    counts, edges = np.histogram(np.clip(confidence.astype(np.float64), 0, 1), _N_BINS, (0.0, 1.0))
    return edges, counts.astype(np.int64)


def against_classes(clusters: np.ndarray, class_names: np.ndarray, n_clusters: int) -> AgainstClasses | None:
    """Matches clusters to known classes, one to one, by the Hungarian method. For display only.

    Args:
        clusters: int64 (N,), 0..C-1.
        class_names: str (N,), "" for an unknown class; these images are left out.

    Returns:
        None if no class is known.
    """
    names, codes = np.unique(class_names, return_inverse=True)
    if len(names) and names[0] == "":
        names, codes = names[1:], codes - 1
    if not len(names):
        return None
    found = agreement(clusters, codes.reshape(-1), n_clusters, len(names))
    first = [int(one) for one in found.matching if one >= 0]
    columns = first + [one for one in range(len(names)) if one not in first]
    return AgainstClasses(
        tuple(str(names[one]) for one in columns),
        tuple(str(names[one]) if one >= 0 else "" for one in found.matching),
        found.confusion[:, columns],
        found,
    )
