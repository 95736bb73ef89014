"""Finds single images by their ids without loading whole sets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .imageset import UNKNOWN_LABEL, DataError
from .source import Source
from .sources import SOURCES, sources_of


@dataclass(frozen=True, eq=False)
class Found:
    """Images found by their ids."""

    images: np.ndarray  # uint8 (N,H,W,3), mid-grey where an image was not found
    found: np.ndarray  # bool (N,)
    labels: np.ndarray  # int64 (N,), the class, -1 where it is unknown
    class_names: np.ndarray  # str (N,), its name, "" where it is unknown
    missing: tuple[str, ...]  # one line for each set that could not be opened


# a set's name and split, and its source
_Place: TypeAlias = tuple[str, str, Source]


def look_up(
    ids: np.ndarray | Sequence[str], sources: Iterable[str] = (), size_px: int = 32, pictures: bool = True
) -> Found:
    """Finds images by their ids, each once or more, in any order.

    Args:
        ids: str (N,), as `sdviz.data.load` gave them.
        sources: Names with a path, as folder:PATH, of ids that begin with `folder/` and so on: such ids do not
            say where on the machine they lie.
        size_px: Height and width of the images.
        pictures: Whether to decode them; without, `images` has no pixels, (N,0,0,3), and a folder's or file's
            content is not looked at.

    Returns:
        What was found; an image that is not on this machine, or is no longer what its id says, is not found.
    """
    names = np.asarray(ids, dtype=str)
    edge = size_px if pictures else 0
    images = np.full((len(names), edge, edge, 3), 127, np.uint8)
    found = np.zeros(len(names), bool)
    labels = np.full(len(names), UNKNOWN_LABEL, np.int64)
    classes = np.full(len(names), "", dtype=object)
    missing: list[str] = []
    own = [(one, source) for one in sources for source in SOURCES if one.startswith(source.prefixes)]
    places: dict[str, list[tuple[str, _Place | str]]] = {}
    groups: dict[_Place | str, list[int]] = {}
    for position, one in enumerate(names.tolist()):
        head = "/".join(one.split("/", 2)[:2])
        if head not in places:
            places[head] = _places(head, own)
        groups.setdefault(_place(one, places[head]), []).append(position)
    for place, positions in groups.items():
        if isinstance(place, str):
            missing.append(place)
            continue
        wanted = names[positions]
        name, split, source = place
        try:
            some = source.find(name, split, wanted, size_px, pictures)
        except (DataError, OSError) as error:
            missing.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
            continue
        row_of = {one: row for row, one in enumerate(some.ids.tolist())}
        rows = np.array([row_of.get(one, -1) for one in wanted.tolist()])
        at = np.array(positions)[rows >= 0]
        rows = rows[rows >= 0]
        found[at] = True
        labels[at] = some.labels[rows]
        if pictures:
            images[at] = some.images[rows]
        known = some.labels[rows] >= 0
        classes[at[known]] = np.array(some.class_names, dtype=object)[some.labels[rows[known]]]
    return Found(images, found, labels, classes.astype(str), tuple(dict.fromkeys(missing)))


def _places(head: str, own: list[tuple[str, Source]]) -> list[tuple[str, _Place | str]]:
    """Where ids such as "cifar10/test/..." may be: how they begin, and the set or why there is none."""
    name, _, split = head.partition("/")
    for path_name, source in own:
        (only,) = source.splits(path_name)
        if source.id_prefix(path_name, only) == f"{head}/":
            return [(head, (path_name, only, source))]
    if any(name in source.kinds for source in SOURCES):
        return [(head, f"{head}: its place on this machine is not known")]
    absent = f"{name} ({split}) is not on this machine"
    found: list[tuple[str, _Place | str]] = [(head, absent)]
    for source in sources_of(name):
        here = split in source.splits(name)
        found.append((source.id_prefix(name, split), (name, split, source) if here else absent))
    return found


def _place(one: str, places: list[tuple[str, _Place | str]]) -> _Place | str:
    """The set that an id is of, or one line on why it cannot be found."""
    if not one.split("/", 2)[2:]:
        return f"{one[:60]!r} is no id of an image set"
    # the longest prefix counts: "cifar10/test/tv-" rather than "cifar10/test/"
    fitting = [
        (len(prefix), not isinstance(place, str), place) for prefix, place in places if one.startswith(prefix)
    ]
    return max(fitting, key=lambda found: found[:2])[2]
