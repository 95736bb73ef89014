"""One image under Eq. 6: which set it is of, the terms of its score, and its place among the features."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sklearn.decomposition import PCA

from ..bundle import Banks
from ..data.imageset import permutation
from ..detection.knn import unit_length
from ..detection.score import Neighbourhood, SDScore
from .rescoring import SetScores
from .tables import Evidence, MissingPart, ScoredSet, or_none

# groups of images other than the scored sets: the two banks, and images that the bundle has never seen
TRAIN, OUTLIERS, OTHER = "train", "SD outliers", ""
WORST, BORDER, RANDOM = "worst first", "nearest to the threshold", "random"
MAP_OF_BANK, MAP_OF_SET = 600, 250


@dataclass(frozen=True, eq=False)
class Sample:
    """An image that a bundle's tables know, or a new one."""

    id: str
    group: str  # the scored set that it is of, `TRAIN`, `OUTLIERS`, or `OTHER` for a new one
    role: str  # "id", "near", "far" or "validation", "train", "outlier", "" for a new one
    row: int  # in the set or bank, -1 for a new one
    features: np.ndarray | None = None  # float32 (D,); None where they are not kept and have to be computed
    # Logits by head, "g_bin" (2,), "g_in" (C,), "g_out" (C,); empty where they are not kept
    heads: Mapping[str, np.ndarray] = field(default_factory=dict)
    # its line of scores.parquet, as sets of one; None outside the scored sets
    measured: SetScores | None = None


def scored_sets(evidence: Evidence) -> dict[str, ScoredSet]:
    """The scored sets by name, none in a bundle that was never measured."""
    return or_none(lambda: evidence.sets) or {}


def banks_of(evidence: Evidence) -> Banks | None:
    """The reference features, None in a bundle without them."""
    return or_none(lambda: evidence.banks)


def group_ids(evidence: Evidence) -> dict[str, np.ndarray]:
    """The ids of each group that has some: the scored sets in their order, then the banks."""
    found = {name: one.ids for name, one in scored_sets(evidence).items()}
    banks = banks_of(evidence)
    if banks is not None:
        found |= {TRAIN: banks.id_ids, OUTLIERS: banks.outlier_ids}
    return {name: ids for name, ids in found.items() if len(ids)}


def find_sample(evidence: Evidence, one: str, prefer: str = "") -> Sample | None:
    """An image by its id, of the group `prefer` if it is in several; None where no set or bank has it."""
    groups = group_ids(evidence)
    for name in sorted(groups, key=lambda name: name != prefer):
        rows = np.flatnonzero(groups[name] == one)
        if len(rows):
            return sample_at(evidence, name, int(rows[0]))
    return None


def sample_at(evidence: Evidence, group: str, row: int) -> Sample:
    """The image in that row of a set or bank."""
    sets = scored_sets(evidence)
    if group in sets:
        s = sets[group]
        one = slice(row, row + 1)
        return Sample(
            str(s.ids[row]),
            group,
            s.role,
            row,
            None if s.features is None else s.features[row],
            {name: logits[row] for name, logits in s.heads.items()},
            SetScores(s.distance[one], s.votes[one], s.total[one]),
        )
    banks = evidence.banks
    if group == TRAIN:
        return Sample(str(banks.id_ids[row]), TRAIN, "train", row, banks.id_features[row])
    return Sample(str(banks.outlier_ids[row]), OUTLIERS, "outlier", row, banks.outlier_features[row])


def matching_ids(evidence: Evidence, text: str) -> tuple[list[str], int]:
    """The first five ids that are this text, else contain it, and how many there are."""
    everything = list(dict.fromkeys(one for ids in group_ids(evidence).values() for one in ids.tolist()))
    if text in everything:
        return [text], 1
    found = [one for one in everything if text in one]
    return found[:5], len(found)


def ordered(total: np.ndarray, threshold: float, is_id: bool, order: str) -> np.ndarray:
    """The rows of a set in the order asked for, int64 (N,).

    Args:
        total: float (N,), scores.
        threshold: Scores above it are called OOD.
        is_id: For these the highest scores are the worst, for OOD images the lowest.
        order: `WORST`, `BORDER` or `RANDOM`, which is the same every time.
    """
    if order == RANDOM:
        return permutation(len(total), 0)
    key = np.abs(total - threshold) if order == BORDER else (-total if is_id else total)
    return np.argsort(key, kind="stable")


def sample_to_begin_with(
    evidence: Evidence, totals: Mapping[str, np.ndarray], threshold: float | None
) -> tuple[Sample | None, str]:
    """A good image to begin with: the missed OOD image closest to the threshold, of a near set if there is one.

    None of OOD missed, it is the closest one above; without OOD sets the ID image closest to the threshold;
    in a bundle that was never measured the first training image.

    Args:
        totals: float (N,), the scores of every scored set under the settings in use.
        threshold: In force; None where it is not known, then the bundle's own scores and threshold count.

    Returns:
        The image, and what it is, as the end of "this is ...".
    """
    try:
        own, sets = evidence.reference.threshold, evidence.sets
    except MissingPart:
        banks = banks_of(evidence)
        if banks is None or not len(banks.id_ids):
            return None, ""
        return sample_at(evidence, TRAIN, 0), "the first training image"
    roles = ("near", "far", "validation", "id")
    s = min(sets.values(), key=lambda one: roles.index(one.role) if one.role in roles else len(roles))
    total, limit = (s.total, own) if threshold is None else (totals[s.name], threshold)
    missed = (total <= limit) & (s.role != "id")
    far_off = np.abs(total - limit)
    row = int(np.argmin(np.where(missed, far_off, np.inf) if missed.any() else far_off))
    kind = "missed OOD" if missed.any() else "ID" if s.role == "id" else "OOD"
    where = "the bundle's own threshold" if threshold is None else "the threshold"
    return sample_at(evidence, s.name, row), f"the {kind} image of `{s.name}` closest to {where}"


def shares_below(totals: Mapping[str, np.ndarray], total: float) -> dict[str, float]:
    """How many % of each set's scores this one is above, 0..100; equal ones do not count."""
    return {name: 100.0 * float((scores < total).mean()) for name, scores in totals.items() if len(scores)}


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of one head's logits, float64 (C,)."""
    e = np.exp(np.asarray(logits, np.float64) - float(np.max(logits)))
    return np.asarray(e / e.sum())


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A plane through the features, the one in which they spread most."""

    normalize: bool  # whether features are brought to unit length first
    places: Mapping[str, np.ndarray]  # float64 (n,2) of some images, by group
    ids: Mapping[str, np.ndarray]  # str (n,) of those
    explained: np.ndarray  # float64 (2,), the share of all spread that each axis has, 0..1
    _fit: PCA

    def place(self, features: np.ndarray) -> np.ndarray:
        """Where features (N,D) lie in it, float64 (N,2)."""
        rows = unit_length(features) if self.normalize else features
        return np.asarray(self._fit.transform(rows), np.float64)


def feature_map(evidence: Evidence, normalize: bool) -> FeatureMap:
    """The first two principal components of a fixed draw of all features. Raises MissingPart: no banks."""
    banks = evidence.banks
    parts = {TRAIN: (banks.id_features, banks.id_ids, MAP_OF_BANK)}
    if len(banks.outlier_ids):
        parts[OUTLIERS] = (banks.outlier_features, banks.outlier_ids, MAP_OF_BANK)
    for name, one in scored_sets(evidence).items():
        if one.features is not None and len(one):
            parts[name] = (one.features, one.ids, MAP_OF_SET)
    rows: dict[str, np.ndarray] = {}
    ids: dict[str, np.ndarray] = {}
    for name, (features, names, most) in parts.items():
        draw = np.sort(permutation(len(names), 0)[:most])
        rows[name] = unit_length(features[draw]) if normalize else features[draw]
        ids[name] = names[draw]
    stack = np.concatenate(list(rows.values()))
    if min(stack.shape) < 2:
        raise MissingPart("this bundle has too few features for a map")
    fit = PCA(2, svd_solver="covariance_eigh").fit(stack)
    places = {name: np.asarray(fit.transform(some), np.float64) for name, some in rows.items()}
    return FeatureMap(normalize, places, ids, np.asarray(fit.explained_variance_ratio_), fit)


@dataclass(frozen=True)
class Parts:
    """The terms of one image's score."""

    distance: float  # the first term of Eq. 6
    votes: int  # outliers among the k nearest of both banks
    alpha: float  # weight of a vote
    total: float  # distance + alpha * votes


def score_parts(
    sample: Sample, near: Neighbourhood | None, k: int, alpha: float, as_measured: bool
) -> Parts | None:
    """Eq. 6 of one image.

    Args:
        near: Its neighbours; None in a bundle without banks.
        as_measured: k and normalisation are those that the bundle was measured with, so that distance and
            votes stand in its table.

    Returns:
        None where that cannot be known.

    Raises:
        ValueError: k above the number of neighbours searched for.
    """
    if as_measured and sample.measured is not None:
        distance, votes = float(sample.measured.distance[0]), int(sample.measured.votes[0])
    elif near is not None:
        s = near.scores(k, alpha)
        distance, votes = float(s.distance[0]), int(s.votes[0])
    else:
        return None
    return Parts(distance, votes, alpha, distance + alpha * votes)


def search_both(search: SDScore, features: np.ndarray, id_id: str, outlier_id: str, k: int) -> Neighbourhood:
    """Neighbours of pictures that were all made of one image.

    Args:
        search: Over both banks.
        features: float (N,D).
        id_id: Skipped among ID images: the image itself.
        outlier_id: Skipped among outliers: the one that the bank has of that image, "" for none.

    Raises:
        ValueError: As `SDScore.search`.
    """
    one = search.search(features, [id_id] * len(features), k)
    if not outlier_id:
        return one
    other = search.search(features, [outlier_id] * len(features), k)
    return Neighbourhood(one.id_distances, one.id_indices, other.outlier_distances, other.outlier_indices)
