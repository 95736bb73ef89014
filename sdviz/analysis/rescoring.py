"""Computes Eq. 6 of every scored set for any k and alpha from one search of neighbours."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..detection.score import Neighbourhood, SDScore
from .tables import Evidence, MissingPart

MAX_K = 50
QUERIES_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class SetScores:
    """Eq. 6 of one set under some settings."""

    distance: np.ndarray  # float64 (N,)
    votes: np.ndarray  # int64 (N,)
    total: np.ndarray  # float64 (N,), distance + alpha * votes


@dataclass(frozen=True, eq=False)
class Rescorer:
    """The neighbours of every scored image, enough for any k up to `max_k`."""

    normalize: bool  # whether features were brought to unit length first
    max_k: int  # the largest k that may be asked for
    neighbourhoods: dict[str, Neighbourhood]  # by set

    def scores(self, k: int, alpha: float) -> dict[str, SetScores]:
        """Eq. 6 of every set. Raises ValueError: k outside 1..max_k, or alpha below 0."""
        found = {}
        for name, near in self.neighbourhoods.items():
            s = near.scores(k, alpha)
            found[name] = SetScores(s.distance, s.votes, s.total)
        return found


def most_neighbours(n_id: int, own_k: int) -> int:
    """The largest k to search for: `MAX_K`, less in a small bank, more where the bundle's own is more."""
    return min(n_id, max(own_k, min(MAX_K, max(1, n_id - 1))))


def rescorer(
    evidence: Evidence, normalize: bool, on_progress: Callable[[float], None] | None = None
) -> Rescorer:
    """Searches the neighbours of every scored image in the bundle's banks. Raises MissingPart: no such part."""
    banks, sets = evidence.banks, evidence.sets
    without = [name for name, one in sets.items() if one.features is None]
    if without:
        raise MissingPart(
            f"this bundle has no features of {without[0]}: it can be scored by its own settings only"
        )
    own = evidence.bundle.manifest.score
    max_k = most_neighbours(len(banks.id_features), 1 if own is None else own.k)
    search = SDScore(k=max_k, alpha=0.0, normalize=normalize).fit(
        banks.id_features, banks.outlier_features, id_ids=banks.id_ids, outlier_ids=banks.outlier_ids
    )
    total, done = sum(len(one) for one in sets.values()), 0
    found: dict[str, Neighbourhood] = {}
    for name, one in sets.items():
        parts = []
        for first in range(0, len(one), QUERIES_AT_ONCE):
            rows = slice(first, first + QUERIES_AT_ONCE)
            assert one.features is not None
            parts.append(search.search(one.features[rows], one.ids[rows]))
            done += len(one.ids[rows])
            if on_progress is not None:
                on_progress(done / total)
        found[name] = Neighbourhood(
            *(
                np.concatenate([getattr(part, column) for part in parts])
                for column in ("id_distances", "id_indices", "outlier_distances", "outlier_indices")
            )
        )
    return Rescorer(normalize, max_k, found)


def stored_scores(evidence: Evidence) -> dict[str, SetScores]:
    """Eq. 6 of every set as the bundle was measured, by its own k, alpha and normalisation."""
    return {name: SetScores(one.distance, one.votes, one.total) for name, one in evidence.sets.items()}
