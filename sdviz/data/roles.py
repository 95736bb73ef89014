"""Which split of a set has which role in a run, and which sets may not stand beside each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from .. import data
from .imageset import ImageSet
from .source import path_in
from .sources import sources_of


def absolute_source(name: str) -> str:
    """The name of a set, with an absolute path in a name such as folder:pets."""
    for kind in data.OWN_KINDS:
        path = name.removeprefix(kind)
        if path and path != name:
            return kind + os.path.abspath(os.path.expanduser(path))
    return name


def ood_split(name: str) -> tuple[str, str | None]:
    """The data set and split that an OOD set's name means: test, if it names none of several splits."""
    source, split = data.parse_source(name)
    if split is None and len(splits := data.splits(source)) > 1 and "test" in splits:
        split = "test"
    return source, split


def test_split(name: str, split: str | None) -> str | None:
    """The split that images are tested on if `split` of the same set is trained on; None if there is none."""
    present = data.splits(name)
    trained_on = split or (present[0] if len(present) == 1 else "train")
    return "test" if "test" in present and trained_on != "test" else None


def own_splits(images: ImageSet) -> list[str]:
    """The splits of a set without those that it offers as sets of their own, such as defects."""
    offered = {one.rpartition(":")[2] for one in images.found.offered}
    return [one for one in data.splits(images.name) if one not in offered]


def clash(name: str, splits: Sequence[str], other: str, other_splits: Sequence[str]) -> str | None:
    """One line if some splits of two sets are the same images, or one set lies inside the other; None if not.

    Links count as what they lead to. A set whose files are all in another one lies inside it.
    """
    source, around = [absolute_source(data.parse_source(one)[0]) for one in (name, other)]
    same = f"{name} and {other} are the same images, and have two roles"
    if source == around and {*splits} & {*other_splits}:
        return same
    own, others = _files(source, splits), _files(around, other_splits)
    if not own & others:
        return None
    if own == others:
        return same
    if own < others or (is_inside(source, around) and not others < own):
        return f"{name} lies inside {other}: its images would have two roles"
    if others < own or is_inside(around, source):
        return f"{other} lies inside {name}: its images would have two roles"
    return None


def is_inside(inner: str, outer: str) -> bool:
    """Whether a set's path lies inside that of another of the same kind, as folder:a/b inside folder:a."""
    kind = next((one for one in data.OWN_KINDS if inner.startswith(one) and outer.startswith(one)), None)
    if kind is None:
        return False
    return path_in(inner).resolve().is_relative_to(path_in(outer).resolve())


def _files(source: str, splits: Sequence[str]) -> set[tuple[int, int, str]]:
    """Device and number of the files of a set, the same under all names of a file; and the split in a file."""
    found = set()
    for split in splits:
        reader = next(one for one in sources_of(source) if split in one.splits(source))
        for path in reader.paths(source, split):
            with suppress(OSError):  # a link to nothing
                stat = path.stat()
                found.add((stat.st_dev, stat.st_ino, split if reader.one_file else ""))
    return found
