"""One image under Eq. 6: its set, the terms of its score, and its place in a map of features."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import softmax
from sklearn.decomposition import PCA

from ..bundle import Banks
from ..bundle.generated import GENERATED
from ..data.imageset import permutation
from ..detection.score import Neighbourhood, SDScore
from .rescoring import SetScores
from .tables import ID_ROLES, OUTLIERS, TRAIN, Evidence, MissingPart, ScoredSet, or_none, scaled

OTHER = ""  # the group of images that are in no set or bank
WORST, BORDER, RANDOM = "worst first", "nearest to the threshold", "random"
MAP_OF_BANK, MAP_OF_SET = 600, 250


@dataclass(frozen=True, eq=False)
class Sample:
    """An image of the bundle's sets or banks, or a new one."""

    id: str
    group: str  # a scored set, `TRAIN`, `OUTLIERS`, or `OTHER` for a new image
    role: str  # "id", "near", "far", "validation", "train" or "outlier", "" for a new image
    row: int  # in the set or bank, -1 for a new image
    features: np.ndarray | None = None  # float32 (D,), if kept
    # logits, "g_bin" (2,), "g_in" (C,), "g_out" (C,); empty if not kept
    heads: Mapping[str, np.ndarray] = field(default_factory=dict)
    measured: SetScores | None = None  # its row of scores.parquet; None outside the scored sets


def scored_sets(evidence: Evidence) -> dict[str, ScoredSet]:
    """The scored sets by name; empty if the bundle was never measured."""
    return or_none(lambda: evidence.shown_sets) or {}


def banks_of(evidence: Evidence) -> Banks | None:
    """The reference features, None if the bundle has none."""
    return or_none(lambda: evidence.banks)


def group_ids(evidence: Evidence) -> dict[str, np.ndarray]:
    """The ids of each non-empty group: the scored sets, then the banks."""
    found = {name: one.ids for name, one in scored_sets(evidence).items()}
    banks = banks_of(evidence)
    if banks is not None:
        found |= {TRAIN: banks.id_ids, OUTLIERS: banks.outlier_ids}
    return {name: ids for name, ids in found.items() if len(ids)}


def find_sample(evidence: Evidence, one: str, prefer: str = "") -> Sample | None:
    """Finds an image by its id, first in the group `prefer`; None if no set or bank has it."""
    groups = group_ids(evidence)
    for name in sorted(groups, key=lambda name: name != prefer):
        rows = np.flatnonzero(groups[name] == one)
        if len(rows):
            return sample_at(evidence, name, int(rows[0]))
    return None


def sample_at(evidence: Evidence, group: str, row: int) -> Sample:
    """The image in a row of a set or bank."""
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
    """Searches ids by text: the id that equals it, else the first five that contain it, and their number."""
    everything = list(dict.fromkeys(one for ids in group_ids(evidence).values() for one in ids.tolist()))
    if text in everything:
        return [text], 1
    found = [one for one in everything if text in one]
    return found[:5], len(found)


def ordered(total: np.ndarray, threshold: float, is_id: bool, order: str) -> np.ndarray:
    """Sorts the rows of a set, int64 (N,).

    Args:
        total: float (N,), scores.
        threshold: A score above it means OOD.
        is_id: Whether the worst scores are the highest, as for ID images, else the lowest.
        order: `WORST`, `BORDER` or `RANDOM`, which is always the same.
    """
    if order == RANDOM:
        return permutation(len(total), 0)
    key = np.abs(total - threshold) if order == BORDER else (-total if is_id else total)
    return np.argsort(key, kind="stable")


def sample_to_begin_with(
    evidence: Evidence, totals: Mapping[str, np.ndarray], threshold: float | None
) -> tuple[Sample | None, str]:
    """Chooses the first image to show: the missed OOD image closest to the threshold, near-OOD if possible.

    If no OOD image is missed, it is the OOD image closest to the threshold; without OOD sets, the closest ID
    image; without scores, the first training image. Where generated images stand in, it is one of them.

    Args:
        totals: By set, float (N,), for the settings in use.
        threshold: The one in use; None for the bundle's own threshold and scores.

    Returns:
        The image, and its description for "this is ...".
    """
    try:
        own, sets = evidence.reference.threshold, evidence.sets
        if evidence.stands_in:
            sets = {name: one for name, one in evidence.shown_sets.items() if name == GENERATED} or sets
    except MissingPart:
        banks = banks_of(evidence)
        if banks is None or not len(banks.id_ids):
            return None, ""
        return sample_at(evidence, TRAIN, 0), "the first training image"
    roles = ("near", "far", "validation", "sd", *ID_ROLES)
    s = min(sets.values(), key=lambda one: roles.index(one.role))
    total, limit = (s.total, own) if threshold is None else (totals[s.name], threshold)
    missed = (total <= limit) & (s.role not in ID_ROLES)
    far_off = np.abs(total - limit)
    row = int(np.argmin(np.where(missed, far_off, np.inf) if missed.any() else far_off))
    kind = {"id": "ID ", GENERATED: ""}.get(s.role, "missed OOD " if missed.any() else "OOD ")
    where = "the bundle's own threshold" if threshold is None else "the threshold"
    return sample_at(evidence, s.name, row), f"the {kind}image of `{s.name}` closest to {where}"


def shares_below(totals: Mapping[str, np.ndarray], total: float) -> dict[str, float]:
    """The share of each set's scores below `total`, in %."""
    return {name: 100.0 * float((scores < total).mean()) for name, scores in totals.items() if len(scores)}


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of one head's logits, float64 (C,)."""
    return np.asarray(softmax(np.asarray(logits, np.float64)))


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The plane of the first two principal components of the features."""

    normalize: bool  # whether features are scaled to unit length
    places: Mapping[str, np.ndarray]  # by group, float64 (n,2)
    ids: Mapping[str, np.ndarray]  # by group, str (n,)
    explained: np.ndarray  # float64 (2,), share of the variance along each axis, 0..1
    _fit: PCA

    def place(self, features: np.ndarray) -> np.ndarray:
        """Projects features (N,D) into the plane, float64 (N,2)."""
        return np.asarray(self._fit.transform(scaled(features, self.normalize)), np.float64)


def feature_map(evidence: Evidence, normalize: bool) -> FeatureMap:
    """Fits the plane to a fixed draw of all features. Raises MissingPart: no banks, or too few features."""
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
        rows[name] = scaled(features[draw], normalize)
        ids[name] = names[draw]
    stack = np.concatenate(list(rows.values()))
    if min(stack.shape) < 2:
        raise MissingPart("this bundle has too few features for a map")
    fit = PCA(2, svd_solver="covariance_eigh").fit(stack)
    places = {name: np.asarray(fit.transform(some), np.float64) for name, some in rows.items()}
    return FeatureMap(normalize, places, ids, np.asarray(fit.explained_variance_ratio_), fit)


@dataclass(frozen=True)
class Parts:
    """The terms of one image's score by Eq. 6."""

    distance: float  # the first term
    votes: int  # outliers among the k nearest of both banks
    alpha: float  # weight of a vote
    total: float  # distance + alpha * votes


def score_parts(
    sample: Sample, near: Neighbourhood | None, k: int, alpha: float, as_measured: bool
) -> Parts | None:
    """Computes the terms of Eq. 6 for one image; None if the bundle has neither its neighbours nor its score.

    Args:
        near: Its neighbours; None in a bundle without banks.
        as_measured: Whether k and normalisation are the bundle's own, so that `sample.measured` holds.

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
    """Finds the neighbours of pictures made from one image, without that image and its own outlier.

    Args:
        search: Over both banks.
        features: float (N,D).
        id_id: The image.
        outlier_id: Its outlier in the bank, "" for none.

    Raises:
        ValueError: As `SDScore.search`.
    """
    one = search.search(features, [id_id] * len(features), k)
    if not outlier_id:
        return one
    other = search.search(features, [outlier_id] * len(features), k)
    return Neighbourhood(one.id_distances, one.id_indices, other.outlier_distances, other.outlier_indices)
