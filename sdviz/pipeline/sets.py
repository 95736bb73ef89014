"""The images that a detector is measured on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .. import data
from ..config.tree import RunConfig
from ..data import DataError, ImageSet, MissingDataError
from . import sd_test
from .sd_test import SD_TEST, read_sd_test
from .workspace import Settings, Workspace, absolute_source

Role = Literal["id", "near", "far", "validation", "sd"]


@dataclass(frozen=True, eq=False)
class NamedSet:
    """Images to score, with the part they play.

    Attributes:
        key: What files and reports call them: "test" or the set's name, with its split where one was named.
        role: "id", "near", "far", "validation", or "sd": SD outliers of held-out ID images.
    """

    key: str
    role: Role
    images: ImageSet


def evaluation_sets(work: Workspace) -> Iterator[NamedSet]:
    """The ID test images, then every OOD set that the configuration names."""
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
        classes = e.classes.get(name)
        limit = e.limit if classes is None else None
        images = data.load(source, split or _only_test(source), limit, e.seed, d.on_error, d.size_px)
        if classes is not None:
            images = of_classes(images, classes)
            if e.limit is not None and e.limit < len(images):
                images = images.take(data.permutation(len(images), e.seed)[: e.limit])
        yield NamedSet(name, role, images)
    if e.sd_test is not None:
        yield NamedSet(SD_TEST, "sd", read_sd_test(work))


def of_classes(images: ImageSet, names: Collection[str]) -> ImageSet:
    """Only the images of some classes, each by its name or that name's first word (a WordNet id)."""
    return images.take(np.isin(images.labels, class_rows(images, names)))


def class_rows(images: ImageSet, names: Collection[str]) -> list[int]:
    """The numbers of the classes of those names, or of names that begin with such a word.

    Raises:
        DataError: A class that the set has not.
    """
    wanted = []
    for name in names:
        found = [i for i, one in enumerate(images.class_names) if name in (one, *one.split()[:1])]
        if not found:
            raise DataError(f"evaluation.classes: {images.name} has no class {name}")
        wanted += found
    return wanted


def _only_test(source: str) -> str | None:
    """An OOD set is looked at through its test split, where it has several."""
    splits = data.splits(source)
    return "test" if "test" in splits and len(splits) > 1 else None


def without_absent_sets(config: RunConfig) -> tuple[RunConfig, dict[str, str]]:
    """The configuration without the OOD sets that are not on this machine, and how to get each of them."""
    e, absent = config.evaluation, {}
    for name in (*e.near, *e.far, *e.validation):
        source, split = data.parse_source(name)
        try:
            data.load(source, split or _only_test(source), 1, e.seed, config.data.on_error, config.data.size_px)
        except MissingDataError as error:
            absent[name] = str(error)
    left = {
        role: tuple(one for one in getattr(e, role) if one not in absent)
        for role in ("near", "far", "validation")
    }
    return config.model_copy(update={"evaluation": e.model_copy(update=left)}), absent


def check_sets(config: RunConfig) -> None:
    """A set that is not on this machine, or a split that cannot be, is found at once and not after hours.

    Args:
        config: The run's; its OOD sets are looked at where it has a detector.

    Raises:
        DataError: As `evaluation_sets`; an OOD set that is the training set, or one in two roles.
    """
    d, e = config.data, config.evaluation
    if d.test_split is not None:
        data.load(d.id, d.test_split, limit=1, on_error=d.on_error, size_px=d.size_px)
    if config.detector is None:
        return
    seen: dict[tuple[str, str | None], str] = {(absolute_source(d.id), None): d.id}
    for name in (*e.near, *e.far, *e.validation):
        source, split = data.parse_source(name)
        images = data.load(source, split or _only_test(source), 1, e.seed, d.on_error, d.size_px)
        # by what it is, and not by how it is written
        for key in ((absolute_source(source), None), (absolute_source(source), images.split)):
            if key in seen:
                raise DataError(f"evaluation: {name} and {seen[key]} are the same images, and have two roles")
        seen[key] = name
        class_rows(images, e.classes.get(name, ()))


def depends_on(config: RunConfig) -> Settings:
    """What of the configuration decides which images `evaluation_sets` gives."""
    named = {"near", "far", "validation", "classes", "sd_test", "limit", "seed"}
    own: Settings = {"sets": config.evaluation.model_dump(mode="json", include=named)}
    return own if config.evaluation.sd_test is None else own | sd_test.depends_on(config)
