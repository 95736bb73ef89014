"""Checks what is in a source before a run: what is read of it, copies, and pictures of other sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from .. import data
from ..text import one_line
from . import roles
from .copies import Looks, contents, look_at, near_groups, near_matches
from .found import Found
from .imageset import DataError, ImageSet, OnError
from .stack import LEFT_OUT

SHOWN = 24
NEIGHBOURS = 10  # of the score, by default


@dataclass(frozen=True, eq=False)
class Repeats:
    """Pictures that repeat others."""

    ids: np.ndarray  # str (M,)
    of: np.ndarray  # str (M,), the picture that each one repeats
    # uint8 (m,2,H,W,3), each picture and the one that it repeats, of the first `SHOWN`
    pictures: np.ndarray = field(default_factory=lambda: np.empty((0, 2, 1, 1, 3), np.uint8))

    def __len__(self) -> int:
        return len(self.ids)


NONE = Repeats(np.empty(0, str), np.empty(0, str))


@dataclass(frozen=True, eq=False)
class Beside:
    """Another set, or the test split, beside the set that was checked."""

    pictures: int
    exact: Repeats  # its pictures that are also in the checked set
    near: Repeats  # its pictures that are near copies of one in the checked set, and not in it


@dataclass(frozen=True, eq=False)
class Check:
    """What is in a set as a run would read it."""

    name: str
    split: str = ""
    pictures: int = 0  # before any are held out, copies counted
    classes: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    found: Found = Found()
    exact: Repeats = NONE  # that repeat an earlier picture: one that is there three times counts twice
    near: Repeats = NONE  # that nearly repeat another one, and repeat none exactly
    others: Mapping[str, Beside] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()  # why a run would not start

    def as_json(self) -> dict[str, Any]:
        """The object that `python -m sdviz check --json` prints."""
        return {
            "pictures": self.pictures,
            "classes": dict(self.classes),
            "splits": dict(self.splits),
            "passed_over": dict(self.found.passed_over),
            "unreadable": list(self.found.unreadable),
            "exact_copies": len(self.exact),
            "near_copies": len(self.near),
            "overlap": {name: len(one.exact) for name, one in self.others.items()},
            "value_range": self.found.value_range,
            "warnings": [*self.refusals, *self.warnings],
        }


def check_source(source: str, against: Sequence[str] = ()) -> Check:
    """Checks a set by its name, such as folder:PATH, as a run with the default settings would read it.

    What cannot be read is among the refusals.

    Args:
        against: Names of OOD sets.
    """
    refusals: list[str] = []
    name, split = data.parse_source(source)
    name = roles.absolute_source(name)
    images = read(lambda on_error: data.load(name, split, on_error=on_error), refusals)
    if images is None:
        return Check(source, refusals=tuple(refusals))
    test, test_split = None, roles.test_split(name, split)
    if test_split is not None:
        test = read(lambda on_error: data.load(name, test_split, on_error=on_error), refusals)
    known, others = {source: roles.own_splits(images)}, dict[str, ImageSet]()
    for one in against:
        other = read(partial(_load_ood, one), refusals)
        if other is None:
            continue
        lines = [roles.clash(one, [other.split], first, splits) for first, splits in known.items()]
        refusals += filter(None, lines)
        others[one] = other
        known.setdefault(one, [other.split])
    found = check_images(images, others, test, refusals)
    left = found.pictures - len(found.exact) - (test is None)
    if 0 < left < NEIGHBOURS:
        line = f"few pictures: evaluation.score.k, {NEIGHBOURS} neighbours by default, must be {left} or less"
        found = replace(found, warnings=(*found.warnings, line))
    return found


def read(
    load: Callable[[OnError], ImageSet], refusals: list[str], on_error: OnError = "raise"
) -> ImageSet | None:
    """Reads a set without the pictures that cannot be read; None if there is nothing to read.

    Args:
        load: Loads it, and gets what to do with such pictures.
        refusals: Gets why a run would not take the set.
        on_error: What a run does with such pictures.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            images = load("skip")
        except DataError as error:
            refusals.append(str(error))
            return None
    # decoders warn of things that stop no run
    told = [one_line(one.message) for one in caught]
    lines = [one.removesuffix(LEFT_OUT) for one in told if one.endswith(LEFT_OUT)]
    if on_error == "raise":
        if images.found.unreadable and not lines:
            lines = [f"{images.name}: folders that cannot be read: {', '.join(images.found.unreadable[:5])}"]
        refusals += [f"{line}; data.on_error=skip leaves them out" for line in lines]
    return images


def _load_ood(name: str, on_error: OnError) -> ImageSet:
    source, split = roles.ood_split(name)
    return data.load(roles.absolute_source(source), split, on_error=on_error)


def check_images(
    images: ImageSet, others: Mapping[str, ImageSet], test: ImageSet | None, refusals: Sequence[str] = ()
) -> Check:
    """Checks a set that is loaded.

    Args:
        others: OOD sets by name.
        test: The split of the same set that is tested on.
        refusals: Why a run would not start, as far as it is known.
    """
    refused, found = list(refusals), images.found
    own = contents(images.images)
    first_of: dict[bytes, int] = {}
    first = np.array([first_of.setdefault(one, row) for row, one in enumerate(own)])
    is_first = first == np.arange(len(images))
    if test is None and is_first.sum() == 1:
        what = "is one picture" if len(images) == 1 else f"are {len(images):,} pictures, all equal"
        refused.append(f"{images.name}: there {what}: none can be held out for testing")
    # 1. within the set
    distinct = np.flatnonzero(is_first)
    looks = look_at(images.images[distinct])
    group = distinct[near_groups(looks)]
    exact = _repeats(images, np.flatnonzero(~is_first), images, first[~is_first])
    near = _repeats(images, distinct[group != distinct], images, group[group != distinct])
    # 2. between sets
    beside = {one: _beside(other, images, first_of, distinct, looks) for one, other in others.items()}
    refused += [
        f"{one}: all its pictures are in {images.name}, too: none is left to measure on"
        for one, other in beside.items()
        if len(other.exact) == other.pictures and not any(one in line for line in refused)
    ]
    # 3. what to say of it
    counts = np.bincount(images.labels[images.labels >= 0], minlength=len(images.class_names))
    classes = dict(zip(images.class_names, counts.tolist(), strict=True))
    lines = [*found.warnings, *_about_classes(images, classes)]
    if n := int((images.labels != images.labels[first]).sum()):
        lines.append(f"copies in another class than the picture that they repeat: {n:,}")
    if test is not None:
        held = _beside(test, images, first_of, distinct, looks)
        if len(held.exact) == held.pictures:
            refused.append(f"{images.name}: every picture of split {test.split} is in {images.split}, too")
        if n := len(held.exact):
            lines.append(f"split {test.split}: {_pictures(n)} also in split {images.split}, and left out")
        lines += _about_near(f"split {test.split}", held, f"split {images.split}")
    for one, other in beside.items():
        lines += _about_near(one, other, images.name)
    splits = found.splits or {one: data.count(images.name, one) for one in data.splits(images.name)}
    return Check(
        images.name, images.split, len(images), classes, splits, found, exact, near, beside, tuple(lines),
        tuple(dict.fromkeys(refused)),
    )  # fmt: skip


def _repeats(images: ImageSet, rows: np.ndarray, of: ImageSet, of_rows: np.ndarray) -> Repeats:
    pictures = np.stack([images.images[rows[:SHOWN]], of.images[of_rows[:SHOWN]]], axis=1)
    return Repeats(images.ids[rows], of.ids[of_rows], pictures)


def _beside(
    other: ImageSet, images: ImageSet, first_of: Mapping[bytes, int], distinct: np.ndarray, looks: Looks
) -> Beside:
    """Finds the pictures of another set in the checked one; `looks` are those of its `distinct` rows."""
    rows = np.array([first_of.get(one, -1) for one in contents(other.images)])
    here, rest = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    matches = near_matches(look_at(other.images[rest]), looks)
    is_near = matches >= 0
    near = _repeats(other, rest[is_near], images, distinct[matches[is_near]])
    return Beside(len(other), _repeats(other, here, images, rows[here]), near)


def _about_classes(images: ImageSet, classes: Mapping[str, int]) -> list[str]:
    n = int((images.labels < 0).sum())
    lines = []
    if not images.class_names or n == len(images):
        lines.append("no picture has a class: labels must come from clusters or a file (labels.source)")
    elif n:
        lines.append(f"{n:,} of {len(images):,} pictures have no class")
    empty = [name for name, count in classes.items() if not count]
    if empty and not any(line.startswith("without a picture") for line in images.found.warnings):
        lines.append(f"without a picture: {', '.join(empty[:8])}{' and others' if len(empty) > 8 else ''}")
    if len(classes) == 1:
        lines.append("there is one class: labels must come from clusters or a file (labels.source)")
    return lines


def _about_near(name: str, beside: Beside, where: str) -> list[str]:
    n = len(beside.near)
    return [f"{name}: {_pictures(n)} nearly equal to some in {where}, and kept"] if n else []


def _pictures(n: int) -> str:
    return "1 picture is" if n == 1 else f"{n:,} pictures are"
