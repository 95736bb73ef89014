"""The images that a detector is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .. import data
from ..data import DataError, ImageSet
from .workspace import Workspace

Role = Literal["id", "near", "far", "validation"]


@dataclass(frozen=True, eq=False)
class NamedSet:
    """Images to score, with the part they play.

    Attributes:
        key: What files and reports call them: "test" or the set's name, with its split where one was named.
        role: "id", "near", "far" or "validation".
        images: The images.
    """

    key: str
    role: Role
    images: ImageSet


def evaluation_sets(work: Workspace) -> Iterator[NamedSet]:
    """The ID test images, then every OOD set that the configuration names.

    Raises:
        DataError: One is not on this machine, or holds images of other ids than it should.
    """
    e, d = work.config.evaluation, work.config.data
    test = work.test
    if test is None:
        raise DataError(f"{work.images.name}: no test images to measure a detector on")
    if e.limit is not None and e.limit < len(test):
        test = test.take(data.permutation(len(test), e.seed)[: e.limit])
    yield NamedSet("test", "id", test)
    named: list[tuple[Role, str]] = [("near", name) for name in e.near]
    named += [("far", name) for name in e.far]
    named += [("validation", name) for name in e.validation]
    for role, name in named:
        source, split = data.parse_source(name)
        images = data.load(source, split or _only_test(source), e.limit, e.seed, d.on_error, d.size_px)
        yield NamedSet(name, role, images)


def _only_test(source: str) -> str | None:
    """An OOD set is looked at through its test split, where it has several."""
    splits = data.splits(source)
    return "test" if "test" in splits and len(splits) > 1 else None


def check_sets(work: Workspace) -> None:
    """A set that is not on this machine, or a split that cannot be, is found at once and not after hours.

    Raises:
        DataError: As `evaluation_sets`.
    """
    d, e = work.config.data, work.config.evaluation
    if d.test_split is not None:
        data.load(d.id, d.test_split, limit=1, on_error=d.on_error, size_px=d.size_px)
    if work.config.detector is not None:
        for name in (*e.near, *e.far, *e.validation):
            source, split = data.parse_source(name)
            data.load(source, split or _only_test(source), 1, e.seed, d.on_error, d.size_px)
