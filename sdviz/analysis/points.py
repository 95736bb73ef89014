"""The points of a layout of feature space: their images, labels and features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .tables import HALVES, OUTLIERS, TRAIN, Evidence, or_none, scaled

_SNAPSHOT_OUTLIERS = "outlier"
_EPOCHS_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Points:
    """Images with their features in F epochs."""

    frames: tuple[str, ...]  # names of the F epochs
    features: np.ndarray  # float32 (F,N,D)
    ids: np.ndarray  # str (N,)
    sets: np.ndarray  # str (N,), `TRAIN`, `OUTLIERS` or a scored set's name
    # int64 (N,), pseudo-label of a training or generated image or of an outlier's source, g_in's prediction for
    # another scored image, -1 for unknown
    clusters: np.ndarray
    start_timesteps: np.ndarray  # int64 (N,), S of an outlier, else -1
    target_labels: np.ndarray  # int64 (N,), wrong label of an outlier, else -1
    scored_rows: np.ndarray  # int64 (N,), row in the scored set, else -1
    same_in: tuple[str, ...] = ()  # the epochs that the only frame stands for, if features never change
    imported: str = ""  # the import whose features these are, "" for the detector's

    def __len__(self) -> int:
        return len(self.ids)

    def spread(self, by_set: dict[str, np.ndarray]) -> np.ndarray:
        """Looks up a value for each point, float64 (N,); NaN where there is none.

        Args:
            by_set: The values of all images of a scored set, by the set's name.
        """
        found = np.full(len(self), np.nan)
        for name, values in by_set.items():
            here = (self.sets == name) & (self.scored_rows >= 0)
            found[here] = values[self.scored_rows[here]]
        return found


def moves(stack: np.ndarray) -> bool:
    """Whether any features, (F,N,D), change between epochs; with a frozen encoder they do not."""
    return bool((stack != stack[:1]).any())


def available_sets(evidence: Evidence, through_training: bool) -> list[str]:
    """The sets with features: training images, scored sets, outliers. Raises MissingPart: there are none."""
    if through_training:
        _, roles, _ = evidence.snapshots
        names = [OUTLIERS if one == _SNAPSHOT_OUTLIERS else one for one in dict.fromkeys(roles.tolist())]
        return sorted(names, key=lambda one: (one != TRAIN, one == OUTLIERS))
    banks = evidence.banks
    sets = or_none(lambda: evidence.shown_sets) or {}
    scored = [name for name, one in sets.items() if one.features is not None and len(one)]
    return [TRAIN] * bool(len(banks.id_ids)) + scored + [OUTLIERS] * bool(len(banks.outlier_ids))


def final_points(evidence: Evidence, sets: Sequence[str], n: int, normalize: bool) -> Points:
    """Draws points in the feature space of the trained detector.

    Args:
        sets: Of `available_sets`.
        n: The number of points, shared as in `shared_out`. A larger n adds points to the same ones.
        normalize: Whether features are scaled to length 1.

    Raises:
        MissingPart: The bundle has no banks.
    """
    banks = evidence.banks
    sources: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in sets:
        if name == TRAIN:
            sources[name] = banks.id_ids, banks.id_features
        elif name == OUTLIERS:
            sources[name] = banks.outlier_ids, banks.outlier_features
        else:
            one = evidence.shown_sets[name]
            if one.features is not None:
                sources[name] = one.ids, one.features
    return _drawn(evidence, "after training", sources, n, normalize)


def imported_points(
    evidence: Evidence,
    name: str,
    features: Mapping[str, tuple[np.ndarray, np.ndarray]],
    sets: Sequence[str],
    n: int,
    normalize: bool,
) -> Points:
    """Draws points in the feature space of an import, as `final_points` does.

    Args:
        name: The import's.
        features: Ids, str (N,), and features, float32 (N,D), of each set.
        sets: Keys of `features`.
    """
    found = _drawn(evidence, name, {one: features[one] for one in sets}, n, normalize)
    return replace(found, imported=name)


def _drawn(
    evidence: Evidence,
    frame: str,
    sources: Mapping[str, tuple[np.ndarray, np.ndarray]],
    n: int,
    normalize: bool,
) -> Points:
    """Draws n of the ids and features of several sets."""
    shares = shared_out(n, [len(ids) for ids, _ in sources.values()])
    ids, names, features = [np.array([], str)], [np.array([], str)], list[np.ndarray]()
    for (name, (all_ids, all_features)), share in zip(sources.items(), shares, strict=True):
        taken = np.sort(np.random.default_rng(0).permutation(len(all_ids))[:share])
        ids.append(all_ids[taken])
        names.append(np.full(len(taken), name))
        features.append(all_features[taken])
    stack = np.concatenate(features)[None] if features else np.empty((1, 0, 1))
    columns = np.concatenate(ids), np.concatenate(names)
    return _described(evidence, (frame,), scaled(stack, normalize), *columns)


def snapshot_points(evidence: Evidence, sets: Sequence[str], n: int, normalize: bool) -> Points:
    """Takes the images whose features were kept through detector training, in at most six epochs.

    If features never change, as with a frozen encoder, one frame stands for all epochs.

    Args:
        sets: Of `available_sets`.
        n: The most points, shared over the sets as in `shared_out`.
        normalize: Whether features are scaled to length 1.

    Raises:
        MissingPart: The bundle has no snapshots.
    """
    stack, roles, ids = evidence.snapshots
    names = np.where(roles == _SNAPSHOT_OUTLIERS, OUTLIERS, roles).astype(str)
    present = [one for one in sets if (names == one).any()]
    shares = shared_out(n, [int((names == one).sum()) for one in present])
    kept = [np.flatnonzero(names == one)[:share] for one, share in zip(present, shares, strict=True)]
    rows = np.concatenate(kept) if kept else np.array([], int)
    last = len(stack) - 1
    chosen = np.unique(np.linspace(0, last, min(_EPOCHS_SHOWN, len(stack))).round().astype(int))
    if last > 1 and len(chosen) > 2:
        chosen[1] = 1  # the first epoch shows what training does early
    frames = tuple(
        "before training" if one == 0 and last else f"epoch {one} (last)" if one == last else f"epoch {one}"
        for one in chosen.tolist()
    )
    features, same_in = stack[chosen][:, rows], tuple[str, ...]()
    if len(frames) > 1 and not moves(stack):
        frames, features, same_in = ("every epoch",), features[-1:], frames
    found = _described(evidence, frames, scaled(features, normalize), ids[rows], names[rows].astype(str))
    return replace(found, same_in=same_in)


def shared_out(n: int, sizes: Sequence[int]) -> list[int]:
    """Shares n evenly over sets of the given sizes; what a small set cannot give, the others do."""
    given = [0] * len(sizes)
    left = min(n, sum(sizes))
    while left > 0:
        open_ones = [i for i, size in enumerate(sizes) if given[i] < size]
        each = max(1, left // len(open_ones))
        for i in open_ones:
            more = min(each, sizes[i] - given[i], left)
            given[i] += more
            left -= more
    return given


def _described(
    evidence: Evidence, frames: tuple[str, ...], features: np.ndarray, ids: np.ndarray, sets: np.ndarray
) -> Points:
    clusters, start, targets, rows = (np.full(len(ids), -1, np.int64) for _ in range(4))
    banks, scored = or_none(lambda: evidence.banks), or_none(lambda: evidence.shown_sets) or {}
    for name in dict.fromkeys(sets.tolist()):
        here = np.flatnonzero(sets == name)
        if name == TRAIN:
            if banks is not None:
                clusters[here] = _by_id(ids[here], banks.id_ids, banks.id_labels)
            elif (labels := or_none(lambda: evidence.pseudo_labels)) is not None:
                clusters[here] = _by_id(ids[here], labels.ids, labels.labels)
        elif name == OUTLIERS:
            table = or_none(lambda: evidence.outliers)
            if table is not None:
                clusters[here] = _by_id(ids[here], table.ids, table.labels)
                start[here] = _by_id(ids[here], table.ids, table.table["start_timestep"].to_numpy())
                targets[here] = _by_id(ids[here], table.ids, table.target_labels)
            elif banks is not None:
                clusters[here] = _by_id(ids[here], banks.outlier_ids, banks.outlier_labels)
        elif name in scored:
            one = scored[name]
            rows[here] = _by_id(ids[here], one.ids, np.arange(len(one)))
            found = here[rows[here] >= 0]
            if name in HALVES:
                known = [evidence.generated_clusters[i] for i in ids[here].tolist()]
                clusters[here], _, targets[here] = np.array(known).T
            elif "g_in" in one.heads and len(found):
                clusters[found] = one.heads["g_in"][rows[found]].argmax(1)
    return Points(frames, features, ids, sets, clusters, start, targets, rows)


def _by_id(wanted: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each wanted id, -1 for no value."""
    found = np.full(len(wanted), -1, np.int64)
    if len(ids):
        order = np.argsort(ids)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
        match = ids[order[at]] == wanted
        found[match] = values[order[at[match]]]
    return found
