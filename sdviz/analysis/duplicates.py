"""Finds near-duplicates: OOD images and outliers whose features almost equal those of a training image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..bundle import Banks
from ..detection.knn import NeighbourSearch
from ..nn.batches import slices
from .tables import Evidence, MissingPart, scaled

QUERIES_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images, the nearest first."""

    ids: np.ndarray  # str (M,), the OOD image or outlier
    others: np.ndarray  # str (M,), the training image nearest to it
    distances: np.ndarray  # float64 (M,), Euclidean, of their features
    is_source: np.ndarray  # bool (M,), whether the outlier was made from that training image

    def __len__(self) -> int:
        return len(self.ids)


def ood_pairs(
    evidence: Evidence, name: str, normalize: bool, on_progress: Callable[[float], None] | None = None
) -> Pairs:
    """Pairs each image of a set with the nearest other training image. Raises MissingPart: no features."""
    one, banks = evidence.shown_sets[name], evidence.banks
    if one.features is None:
        raise MissingPart(f"this bundle has no features of {name}: its neighbours are not known")
    return _nearest(one.features, one.ids, banks, one.ids, normalize, None, on_progress)


def outlier_pairs(
    evidence: Evidence, normalize: bool, on_progress: Callable[[float], None] | None = None
) -> Pairs:
    """Pairs each outlier with its nearest training image. Raises MissingPart: no banks, sources or outliers."""
    banks, sources = _outliers(evidence)
    return _nearest(banks.outlier_features, banks.outlier_ids, banks, None, normalize, sources, on_progress)


def source_pairs(evidence: Evidence, normalize: bool) -> Pairs:
    """Pairs each outlier with its source image, if that is in the ID bank. Raises as `outlier_pairs`."""
    banks, sources = _outliers(evidence)
    row_of = {one: row for row, one in enumerate(banks.id_ids.tolist())}
    rows = np.array([row_of.get(one, -1) for one in sources.tolist()])
    there = np.flatnonzero(rows >= 0)
    if not len(there):
        raise MissingPart("no source of an outlier is in the ID bank: how far they moved is not known")
    a = scaled(banks.outlier_features[there], normalize).astype(np.float64)
    b = scaled(banks.id_features[rows[there]], normalize).astype(np.float64)
    distances = np.sqrt(((a - b) ** 2).sum(1))
    return _sorted(banks.outlier_ids[there], sources[there], distances, np.ones(len(there), bool))


def _outliers(evidence: Evidence) -> tuple[Banks, np.ndarray]:
    """The banks, and the source of each outlier. Raises MissingPart: there are none."""
    banks, sources = evidence.banks, evidence.outliers.source_ids
    if not len(banks.outlier_features):
        raise MissingPart("this bundle has no outliers in its bank")
    return banks, sources


def _nearest(
    queries: np.ndarray,
    ids: np.ndarray,
    banks: Banks,
    own: np.ndarray | None,
    normalize: bool,
    sources: np.ndarray | None,
    on_progress: Callable[[float], None] | None,
) -> Pairs:
    search = NeighbourSearch(scaled(banks.id_features, normalize), banks.id_ids)
    queries = scaled(queries, normalize)
    distances, rows = np.empty(len(queries)), np.empty(len(queries), np.int64)
    for some in slices(len(queries), QUERIES_AT_ONCE, on_progress):
        d, i = search.search(queries[some], 1, None if own is None else own[some], fill=True)
        distances[some], rows[some] = d[:, 0], i[:, 0]
    there = rows >= 0
    others = banks.id_ids[rows[there]]
    is_source = np.zeros(int(there.sum()), bool) if sources is None else others == sources[there]
    return _sorted(ids[there], others, distances[there], is_source)


def _sorted(ids: np.ndarray, others: np.ndarray, distances: np.ndarray, is_source: np.ndarray) -> Pairs:
    order = np.argsort(distances, kind="stable")
    return Pairs(ids[order], others[order], distances[order], is_source[order])
