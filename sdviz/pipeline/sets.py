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
        key: What files and reports call them: "test" or the set's name, with its split if that was named.
        role: "id", "near", "far", "validation", or "sd": SD outliers of held-out ID images.
    """

    key: str
    role: Role
    images: ImageSet


def evaluation_sets(work: Workspace) -> Iterator[NamedSet]:
    """The ID test images, then every OOD set that the configuration names."""
    e = work.config.evaluation
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
        classes = e.classes.get(name)
        images = load_ood_set(work.config, name, e.limit if classes is None else None)
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
    """The numbers of the classes of these names or first words; DataError for one that is not in the set."""
    wanted = []
    for name in names:
        found = [i for i, one in enumerate(images.class_names) if name in (one, *one.split()[:1])]
        if not found:
            raise DataError(f"evaluation.classes: {images.name} has no class {name}")
        wanted += found
    return wanted


def load_ood_set(config: RunConfig, name: str, limit: int | None) -> ImageSet:
    """The OOD set of that name; its test split if no split is named and it has several."""
    source, split = ood_split(name)
    return data.load(source, split, limit, config.evaluation.seed, config.data.on_error, config.data.size_px)


def ood_split(name: str) -> tuple[str, str | None]:
    """The data set and the split that the name of an OOD set means."""
    source, split = data.parse_source(name)
    if split is None and len(splits := data.splits(source)) > 1 and "test" in splits:
        split = "test"
    return source, split


def without_absent_sets(config: RunConfig) -> tuple[RunConfig, dict[str, str]]:
    """The configuration without the OOD sets that are not on this machine, and how to get each of them."""
    e, absent = config.evaluation, {}
    for name in e.ood_sets:
        try:
            load_ood_set(config, name, 1)
        except MissingDataError as error:
            absent[name] = str(error)
    left = {
        role: tuple(one for one in getattr(e, role) if one not in absent)
        for role in ("near", "far", "validation")
    }
    return config.model_copy(update={"evaluation": e.model_copy(update=left)}), absent


def check_sets(config: RunConfig) -> None:
    """Raises DataError for an absent OOD set or split, one that is the training set, and one in two roles."""
    d, e = config.data, config.evaluation
    if d.test_split is not None:
        data.load(d.id, d.test_split, limit=1, on_error=d.on_error, size_px=d.size_px)
    if config.detector is None:
        return
    seen: dict[tuple[str, str | None], str] = {(absolute_source(d.id), None): d.id}
    for name in e.ood_sets:
        images = load_ood_set(config, name, 1)
        # two names may mean the same set
        source = absolute_source(data.parse_source(name)[0])
        for key in ((source, None), (source, images.split)):
            if key in seen:
                raise DataError(f"evaluation: {name} and {seen[key]} are the same images, and have two roles")
        seen[key] = name
        class_rows(images, e.classes.get(name, ()))


def depends_on(config: RunConfig) -> Settings:
    """What of the configuration decides which images `evaluation_sets` gives."""
    named = {"near", "far", "validation", "classes", "sd_test", "limit", "seed"}
    own: Settings = {"sets": config.evaluation.model_dump(mode="json", include=named)}
    return own if config.evaluation.sd_test is None else own | sd_test.depends_on(config)
