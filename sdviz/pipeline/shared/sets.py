"""The image sets that a detector is measured on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ... import data
from ...config.tree import RunConfig
from ...data import DataError, ImageSet, MissingDataError, roles
from ...data.roles import ood_split
from ...nn.randomness import content_ids
from .. import sd_test
from ..sd_test import SD_TEST, read_sd_test
from ..workspace import Settings, Workspace

Role = Literal["id", "near", "far", "validation", "sd"]


@dataclass(frozen=True, eq=False)
class NamedSet:
    """Images to score, and their role."""

    key: str  # in files and reports: "test", or the OOD set as the configuration names it
    role: Role  # "sd": SD outliers of held-out ID images
    images: ImageSet
    # how many images equal one of another set: of "train", "test", or a validation set by its name;
    # `images` is without them, unless `data.on_overlap` is keep
    overlap: Mapping[str, int]


def evaluation_sets(work: Workspace) -> Iterator[NamedSet]:
    """The ID test images, every OOD set that the configuration names, and SD outliers of test images."""
    yield from real_sets(work)
    if work.config.evaluation.sd_test is not None:
        yield NamedSet(SD_TEST, "sd", read_sd_test(work), {})


def real_sets(work: Workspace) -> Iterator[NamedSet]:
    """The sets of `evaluation_sets` that no stage makes.

    Raises:
        DataError: A set that cannot be read, or has no image that is its own.
    """
    e, test = work.config.evaluation, work.test
    assert test is not None  # a run with a detector has test images
    if not len(test):
        raise DataError(f"{test.name}: every image of split {test.split} is in train, too")
    n_seen = int(work.seen_test_rows.sum())
    known: dict[str, Collection[str]] = {"train": work.training_pictures, "test": contents_of(test)}
    if e.limit is not None and e.limit < len(test):
        test = test.take(data.permutation(len(test), e.seed)[: e.limit])
    yield NamedSet("test", "id", test, {"train": n_seen} if n_seen else {})
    # validation sets are read first: what settings are chosen on is no test
    chosen_on = [_own_images(work, "validation", name, known) for name in e.validation]
    known |= {one.key: contents_of(one.images) for one in chosen_on}
    yield from (_own_images(work, "near", name, known) for name in e.near)
    yield from (_own_images(work, "far", name, known) for name in e.far)
    yield from chosen_on


def contents_of(images: ImageSet) -> frozenset[str]:
    """The content ids of a set."""
    return frozenset(content_ids(images.images).tolist())


def _own_images(work: Workspace, role: Role, name: str, known: Mapping[str, Collection[str]]) -> NamedSet:
    """An OOD set, without the images that are in a known set, too."""
    images = load_asked_set(work.config, name)
    found = content_ids(images.images).tolist()
    counts = {key: sum(one in contents for one in found) for key, contents in known.items()}
    overlap = {key: n for key, n in counts.items() if n}
    if overlap and work.config.data.on_overlap != "keep":
        is_own = np.array([not any(one in contents for contents in known.values()) for one in found])
        if not is_own.any():
            raise DataError(f"evaluation: every image of {name} is in {' or '.join(overlap)}, too")
        images = images.take(is_own)
    return NamedSet(name, role, images, overlap)


def load_asked_set(config: RunConfig, name: str) -> ImageSet:
    """Loads the images of an OOD set that the configuration asks for."""
    e = config.evaluation
    classes = e.classes.get(name)
    images = load_ood_set(config, name, e.limit if classes is None else None)
    if classes is not None:
        images = of_classes(images, classes)
        if e.limit is not None and e.limit < len(images):
            images = images.take(data.permutation(len(images), e.seed)[: e.limit])
    return images


def of_classes(images: ImageSet, names: Collection[str]) -> ImageSet:
    """Only the images of some classes, each given by its name or the name's first word (a WordNet id)."""
    return images.take(np.isin(images.labels, class_rows(images, names)))


def class_rows(images: ImageSet, names: Collection[str]) -> list[int]:
    """The numbers of classes given by name or first word; DataError for a class that the set lacks."""
    wanted = []
    for name in names:
        found = [i for i, one in enumerate(images.class_names) if name in (one, *one.split()[:1])]
        if not found:
            raise DataError(f"evaluation.classes: {images.name} has no class {name}")
        wanted += found
    return wanted


def load_ood_set(config: RunConfig, name: str, limit: int | None) -> ImageSet:
    """Loads an OOD set; see `ood_split` for its split."""
    source, split = ood_split(name)
    d = config.data
    return data.load(source, split, limit, config.evaluation.seed, d.on_error, **d.reading)


def without_absent_sets(config: RunConfig) -> tuple[RunConfig, dict[str, str]]:
    """The configuration without the OOD sets that are absent here, and how to get each of those."""
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
    """Raises DataError for an OOD set that is absent, shares files with another set, or has two roles."""
    d, e = config.data, config.evaluation
    if d.test_split is not None:
        data.load(d.id, d.test_split, limit=1, on_error=d.on_error, **d.reading)
    if config.detector is None:
        return
    known: dict[str, Sequence[str]] = {d.id: data.splits(d.id)}
    for name in e.ood_sets:
        images = load_ood_set(config, name, 1)
        class_rows(images, e.classes.get(name, ()))
        for other, splits in known.items():
            line = roles.clash(name, [images.split], other, splits)
            if line is not None and other == d.id:
                line = roles.clash(name, [images.split], other, roles.own_splits(some_images(config)))
            if line is not None:
                raise DataError(f"evaluation: {line}")
        known[name] = (images.split,)


def some_images(config: RunConfig) -> ImageSet:
    """A few of the training images, chosen at random."""
    d = config.data
    return data.load(d.id, d.split, min(d.limit or 64, 64), config.seed, d.on_error, **d.reading)


def depends_on(config: RunConfig) -> Settings:
    """The settings that decide which images `evaluation_sets` yields."""
    named = {"near", "far", "validation", "classes", "sd_test", "limit", "seed"}
    own: Settings = {
        "sets": config.evaluation.model_dump(mode="json", include=named),
        "on_overlap": config.data.on_overlap,
    }
    return own if config.evaluation.sd_test is None else own | sd_test.depends_on(config)
