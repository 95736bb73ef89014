"""Scores all sets by Eq. 6 for any k and alpha, from one neighbour search."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from ..detection.score import Neighbourhood, SDScore
from ..nn.batches import slices
from .tables import Evidence, MissingPart

MAX_K = 50
QUERIES_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class SetScores:
    """The scores of one set by Eq. 6."""

    distance: np.ndarray  # float64 (N,)
    votes: np.ndarray  # int64 (N,)
    total: np.ndarray  # float64 (N,), distance + alpha * votes


@dataclass(frozen=True, eq=False)
class Rescorer:
    """The nearest neighbours of every scored image, for any k up to `max_k`."""

    normalize: bool  # whether features have unit length
    max_k: int
    neighbourhoods: dict[str, Neighbourhood]  # by set

    def scores(self, k: int, alpha: float) -> dict[str, SetScores]:
        """Scores every set. Raises ValueError: k outside 1..max_k, or alpha below 0."""
        found = {}
        for name, near in self.neighbourhoods.items():
            s = near.scores(k, alpha)
            found[name] = SetScores(s.distance, s.votes, s.total)
        return found


def index_over_banks(evidence: Evidence, normalize: bool) -> SDScore:
    """Eq. 6 over the bundle's banks for any k that pages offer. Raises MissingPart: no banks.

    The largest k is `MAX_K`, or the bundle's own k if that is larger, and no more than the ID bank holds.
    """
    banks, own = evidence.banks, evidence.bundle.manifest.score
    n_id = len(banks.id_ids)
    most = min(n_id, max(1 if own is None else own.k, min(MAX_K, max(1, n_id - 1))))
    return banks.fit(SDScore(most, 0.0, normalize), evidence.bundle.device)


def rescorer(
    evidence: Evidence, normalize: bool, on_progress: Callable[[float], None] | None = None
) -> Rescorer:
    """Finds the nearest neighbours of every scored image in the bundle's banks.

    Args:
        on_progress: Gets the share of images done, 0..1.

    Raises:
        MissingPart: The bundle has no banks, no scores or no features of a scored set.
    """
    search, sets = index_over_banks(evidence, normalize), evidence.shown_sets
    for name, one in sets.items():
        if one.features is None:
            raise MissingPart(
                f"this bundle has no features of {name}: it can be scored by its own settings only"
            )
    queries = np.concatenate([one.features for one in sets.values() if one.features is not None])
    ids = np.concatenate([one.ids for one in sets.values()])
    parts = [search.search(queries[rows], ids[rows]) for rows in slices(len(ids), QUERIES_AT_ONCE, on_progress)]
    ends = np.cumsum([len(one) for one in sets.values()])[:-1]
    columns = [np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Neighbourhood)]
    of_sets = zip(*(np.split(column, ends) for column in columns), strict=True)
    found = {name: Neighbourhood(*own) for name, own in zip(sets, of_sets, strict=True)}
    return Rescorer(normalize, search.k, found)


def stored_scores(evidence: Evidence) -> dict[str, SetScores]:
    """The scores that the bundle came with, by its own k, alpha and normalisation."""
    return {name: SetScores(one.distance, one.votes, one.total) for name, one in evidence.shown_sets.items()}
