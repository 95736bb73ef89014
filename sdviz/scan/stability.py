"""How many clusters the features of a set support: clusterings of different samples are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from ..detection.knn import unit_length

# k-means on more images or numbers finds the same, and takes longer
MAX_IMAGES = 5000
DIMENSIONS = 64
SAMPLE_SHARE = 0.8


@dataclass(frozen=True)
class Stability:
    """How well clusterings of different samples agree.

    Attributes:
        n_clusters: C.
        mean: Mean adjusted Rand index of all pairs of clusterings: 1 for equal, about 0 for unrelated ones.
        spread: Standard deviation over the pairs.
    """

    n_clusters: int
    mean: float
    spread: float


def cluster_stability(
    features: np.ndarray, numbers: Sequence[int], samples: int = 5, seed: int = 0
) -> Iterator[Stability]:
    """Clusters several random samples by k-means on unit features, for each number of clusters.

    Each clustering names the cluster of every image, so that two of them can be compared.

    Args:
        features: float (N,D).
        numbers: Each C to try, 2..N.
        samples: Clusterings for each C, at least 2.

    Raises:
        ValueError: A number of clusters outside 2..N, or fewer than 2 samples.
    """
    rng = np.random.default_rng(seed)
    x = unit_length(features)
    x = x[rng.permutation(len(x))[:MAX_IMAGES]]
    n_sampled = int(SAMPLE_SHARE * len(x))
    if samples < 2 or not all(2 <= one <= n_sampled for one in numbers):
        raise ValueError(f"{list(numbers)} clusters of {n_sampled} images in {samples} samples")
    x = PCA(min(DIMENSIONS, *x.shape), random_state=0).fit_transform(x)
    for n_clusters in numbers:
        found = []
        for _ in range(samples):
            rows = rng.permutation(len(x))[:n_sampled]
            kmeans = KMeans(n_clusters, n_init=3, random_state=int(rng.integers(2**31)))
            found.append(kmeans.fit(x[rows]).predict(x))
        scores = [adjusted_rand_score(a, b) for a, b in combinations(found, 2)]
        yield Stability(n_clusters, float(np.mean(scores)), float(np.std(scores)))


def supported(found: Sequence[Stability]) -> int:
    """The largest number of clusters whose agreement is within the best one's spread of the best."""
    best = max(found, key=lambda one: one.mean)
    return max(one.n_clusters for one in found if one.mean >= best.mean - best.spread)
