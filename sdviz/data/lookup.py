"""Finds single images by their ids without loading whole sets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..text import short_line, writable
from .decode import Fit
from .imageset import UNKNOWN_LABEL, DataError
from .levels import AUTO, parse_range
from .source import Source, reading_of
from .sources import SOURCES, sources_of
from .stack import Reading


@dataclass(frozen=True, eq=False)
class LookedUp:
    """Images found by their ids."""

    images: np.ndarray  # uint8 (N,H,W,3), mid-grey where an image was not found
    found: np.ndarray  # bool (N,)
    labels: np.ndarray  # int64 (N,), the class, -1 where it is unknown
    class_names: np.ndarray  # str (N,), its name, "" where it is unknown
    missing: tuple[str, ...]  # one line for each set that could not be opened


# name and split of a set, and its source
_Place: TypeAlias = tuple[str, str, Source]


def look_up(
    ids: np.ndarray | Sequence[str],
    sources: Iterable[str] = (),
    size_px: int = 32,
    pictures: bool = True,
    value_range: str = AUTO,
    fit: Fit = "crop",
) -> LookedUp:
    """Finds images by their ids, which may repeat and come in any order.

    An image that is not on this machine, or has changed since it got its id, is not found.

    Args:
        ids: str (N,), from `sdviz.data.load`.
        sources: Names with a path, such as folder:PATH, for ids such as `folder/...`, which do not contain the
            path.
        size_px: Height and width of the images.
        pictures: Whether to decode them; if not, `images` is (N,0,0,3), and a hash in an id is not checked.
        value_range: As in `sdviz.data.load`, as is `fit`.
    """
    reading = Reading(size_px, "skip", pictures, parse_range(value_range), fit)
    names = np.asarray(ids, dtype=str)
    edge = size_px if pictures else 0
    images = np.full((len(names), edge, edge, 3), 127, np.uint8)
    found = np.zeros(len(names), bool)
    labels = np.full(len(names), UNKNOWN_LABEL, np.int64)
    classes = np.full(len(names), "", dtype=object)
    missing: list[str] = []
    own = [(writable(one), source) for one in sources for source in SOURCES if one.startswith(source.prefixes)]
    places: dict[str, list[tuple[str, _Place | str]]] = {}
    groups: dict[tuple[_Place | str, ...], list[int]] = {}
    for position, one in enumerate(names.tolist()):
        head = "/".join(one.split("/", 2)[:2])
        if head not in places:
            places[head] = _places(head, own)
        groups.setdefault(_fitting(one, places[head]), []).append(position)
    for possible, positions in groups.items():
        for place in possible:
            left = np.array([one for one in positions if not found[one]], np.int64)
            if not len(left):
                break
            if isinstance(place, str):
                missing.append(place)
                continue
            wanted = names[left]
            name, split, source = place
            try:
                with reading_of(name):
                    some = source.find(name, split, wanted, reading)
            except DataError as error:
                missing.append(str(error if str(error).startswith(name) else DataError(f"{name}: {error}")))
                continue
            row_of = {one: row for row, one in enumerate(some.ids.tolist())}
            rows = np.array([row_of.get(one, -1) for one in wanted.tolist()])
            at = left[rows >= 0]
            rows = rows[rows >= 0]
            found[at] = True
            labels[at] = some.labels[rows]
            if pictures:
                images[at] = some.images[rows]
            known = some.labels[rows] >= 0
            classes[at[known]] = np.array(some.class_names, dtype=object)[some.labels[rows[known]]]
    return LookedUp(images, found, labels, classes.astype(str), tuple(dict.fromkeys(missing)))


def _places(head: str, own: list[tuple[str, Source]]) -> list[tuple[str, _Place | str]]:
    """Lists the sets that ids beginning with `head`, such as "cifar10/test", can belong to.

    Args:
        own: (name with a path, its source) of the user's sets.

    Returns:
        For each possible set the prefix of its ids, and the set or one line that says why it cannot be opened.
    """
    name, _, named_split = head.partition("/")
    mine: list[tuple[str, _Place | str]] = []
    for path_name, source in own:
        if name not in source.kinds:
            continue
        try:
            with reading_of(path_name):
                splits = {source.id_prefix(path_name, one): one for one in source.splits(path_name)}
        except DataError as error:
            mine.append((head, str(error)))
            continue
        mine += [
            (one, (path_name, split, source)) for one, split in splits.items() if one.startswith(f"{head}/")
        ]
    if mine:
        return mine
    if any(name in source.kinds for source in SOURCES):
        return [(head, f"{head}: its place on this machine is not known")]
    absent = f"{name} ({named_split}) is not on this machine"
    found: list[tuple[str, _Place | str]] = [(head, absent)]
    for source in sources_of(name):
        here = named_split in source.splits(name)
        found.append((source.id_prefix(name, named_split), (name, named_split, source) if here else absent))
    return found


def _fitting(one: str, places: list[tuple[str, _Place | str]]) -> tuple[_Place | str, ...]:
    """The sets of an id among `_places`, to be asked in turn; or one line that says why there is none."""
    if not one.split("/", 2)[2:]:
        return (f"{short_line(one)!r} is no id of an image set",)
    fitting = [(prefix, place) for prefix, place in places if one.startswith(prefix)]
    # the longest prefix wins: "cifar10/test/tv-" over "cifar10/test/"; two folders may have one name
    longest = max((len(prefix) for prefix, _ in fitting), default=0)
    sets = [place for prefix, place in fitting if len(prefix) == longest and not isinstance(place, str)]
    return tuple(sets) or tuple(place for _, place in fitting[-1:])
