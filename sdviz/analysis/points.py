"""The points of a layout of feature space: which images, what is known of each, and their features by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .tables import Evidence, or_none

TRAIN, OUTLIERS = "train", "SD outliers"
_SNAPSHOT_OUTLIERS = "outlier"
_EPOCHS_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Points:
    """Images, and where they lie in feature space, once or through training."""

    frames: tuple[str, ...]  # what each epoch is called, F of them
    features: np.ndarray  # float32 (F,N,D)
    ids: np.ndarray  # str (N,)
    sets: np.ndarray  # str (N,): `TRAIN`, `OUTLIERS` or a scored set's name
    # int64 (N,): the pseudo-label of a training image or of an outlier's source, g_in's answer for a scored
    # image; -1 where unknown
    clusters: np.ndarray
    start_timesteps: np.ndarray  # int64 (N,), S of an outlier; -1 for other images, or where it is unknown
    target_labels: np.ndarray  # int64 (N,), the wrong label that an outlier was made with; -1 for other images
    scored_rows: np.ndarray  # int64 (N,), the image's row in its scored set; -1 for reference images
    # the epochs that a single frame stands for, where features are the same in all of them
    same_in: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def spread(self, by_set: dict[str, np.ndarray]) -> np.ndarray:
        """Values of each set in its own order, for these points: float64 (N,), NaN where there is none."""
        found = np.full(len(self), np.nan)
        for name, values in by_set.items():
            here = (self.sets == name) & (self.scored_rows >= 0)
            found[here] = values[self.scored_rows[here]]
        return found


def moves(stack: np.ndarray) -> bool:
    """Whether any image's features, of (F,N,D), change between epochs; with a frozen encoder none do."""
    return bool((stack != stack[:1]).any())


def available_sets(evidence: Evidence, through_training: bool) -> list[str]:
    """Sets with points: training images, scored sets, SD outliers. Raises MissingPart: there are none."""
    if through_training:
        _, roles, _ = evidence.snapshots
        names = [OUTLIERS if one == _SNAPSHOT_OUTLIERS else one for one in dict.fromkeys(roles.tolist())]
        return sorted(names, key=lambda one: (one != TRAIN, one == OUTLIERS))
    banks = evidence.banks
    sets = or_none(lambda: evidence.sets) or {}
    scored = [name for name, one in sets.items() if one.features is not None and len(one)]
    return [TRAIN] * bool(len(banks.id_ids)) + scored + [OUTLIERS] * bool(len(banks.outlier_ids))


def final_points(evidence: Evidence, sets: Sequence[str], n: int, normalize: bool) -> Points:
    """Points of the finished detector's feature space.

    Args:
        sets: Of `available_sets`, drawn in this order.
        n: How many points in all, shared out evenly over the sets; a small set's rest goes to the others. With
            more points the same ones stay and others join them.

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
            one = evidence.sets[name]
            if one.features is not None:
                sources[name] = one.ids, one.features
    shares = shared_out(n, [len(ids) for ids, _ in sources.values()])
    ids, features, names, rows = [], [], [], []
    for (name, (all_ids, all_features)), share in zip(sources.items(), shares, strict=True):
        order = np.random.default_rng(0).permutation(len(all_ids))
        taken = np.sort(order[:share])
        ids.append(all_ids[taken])
        features.append(all_features[taken])
        names.append(np.full(len(taken), name))
        rows.append(taken)
    stack = _scaled(np.concatenate(features)[None], normalize) if ids else np.empty((1, 0, 1), np.float32)
    columns = [np.concatenate(column) if ids else np.array([], str) for column in (ids, names)]
    return _described(evidence, ("after training",), stack, *columns)


def snapshot_points(evidence: Evidence, sets: Sequence[str], n: int, normalize: bool) -> Points:
    """The images that were followed through detector training, in six epochs at most.

    These are the first, the last and those evenly between. Where the images stay in one place, as with a frozen
    encoder, one frame stands for every epoch.

    Args:
        n: How many points at most, evenly taken from each set.

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
        chosen[1] = 1  # "early in training" is its first epoch
    frames = tuple(
        "before training" if one == 0 and last else f"epoch {one} (last)" if one == last else f"epoch {one}"
        for one in chosen.tolist()
    )
    features, same_in = stack[chosen][:, rows], tuple[str, ...]()
    if len(frames) > 1 and not moves(stack):
        frames, features, same_in = ("every epoch",), features[-1:], frames
    found = _described(evidence, frames, _scaled(features, normalize), ids[rows], names[rows].astype(str))
    return replace(found, same_in=same_in)


def shared_out(n: int, sizes: Sequence[int]) -> list[int]:
    """How many each set gives when n are taken evenly, none more than it has."""
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


def _scaled(features: np.ndarray, normalize: bool) -> np.ndarray:
    features = features.astype(np.float32)
    if not normalize:
        return features
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1.0), np.float32)


def _described(
    evidence: Evidence, frames: tuple[str, ...], features: np.ndarray, ids: np.ndarray, sets: np.ndarray
) -> Points:
    clusters, start, targets, rows = (np.full(len(ids), -1, np.int64) for _ in range(4))
    for name in dict.fromkeys(sets.tolist()):
        here = np.flatnonzero(sets == name)
        if name == TRAIN:
            clusters[here] = _by_id(ids[here], *_training_clusters(evidence))
        elif name == OUTLIERS:
            for column, values in _outlier_columns(evidence).items():
                {"cluster": clusters, "S": start, "target": targets}[column][here] = _by_id(ids[here], *values)
        else:
            one = (or_none(lambda: evidence.sets) or {}).get(name)
            if one is None:
                continue
            rows[here] = _by_id(ids[here], one.ids, np.arange(len(one)))
            known = here[rows[here] >= 0]
            if "g_in" in one.heads and len(known):
                clusters[known] = one.heads["g_in"][rows[known]].argmax(1)
    return Points(frames, features, ids, sets, clusters, start, targets, rows)


def _training_clusters(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    if (banks := or_none(lambda: evidence.banks)) is not None:
        return banks.id_ids, banks.id_labels
    found = or_none(lambda: evidence.pseudo_labels)
    return (np.array([], str), np.array([], np.int64)) if found is None else (found.ids, found.labels)


def _outlier_columns(evidence: Evidence) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    table = or_none(lambda: evidence.outliers)
    if table is None:
        banks = or_none(lambda: evidence.banks)
        return {} if banks is None else {"cluster": (banks.outlier_ids, banks.outlier_labels)}
    return {
        "cluster": (table.ids, table.labels),
        "S": (table.ids, table.table["start_timestep"].to_numpy().astype(np.int64)),
        "target": (table.ids, table.target_labels),
    }


def _by_id(wanted: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each id, -1 where there is none."""
    found = np.full(len(wanted), -1, np.int64)
    if len(ids):
        order = np.argsort(ids)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
        match = ids[order[at]] == wanted
        found[match] = values[order[at[match]]]
    return found
