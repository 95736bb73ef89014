"""Checks the images of a run as `python -m sdviz check` does, and keeps what was found in the run's folder."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ... import data
from ...config.tree import RunConfig
from ...data import DataError, ImageSet
from ...data.check import Check, check_images, read
from ...data.imageset import OnError
from ...files import write_atomically
from ...table_files import write_parquet
from ..shared.sets import check_sets, load_asked_set
from ..workspace import Workspace, test_split

CHECK, COPIES = "check.json", "copies.parquet"


def check_config(config: RunConfig, with_ood: bool = True) -> Check:
    """Checks the training set, with its test split and the OOD sets. What cannot be read is in the refusals."""
    d, e = config.data, config.evaluation
    refusals: list[str] = []
    images = read(
        lambda on_error: data.load(d.id, d.split, d.limit, config.seed, on_error, **d.reading),
        refusals,
        d.on_error,
    )
    if images is None:
        return Check(d.id, refusals=tuple(refusals))
    test, split = None, test_split(d)
    if split is not None:
        test = read(
            lambda on_error: data.load(d.id, split, on_error=on_error, **d.reading), refusals, d.on_error
        )
    others = dict[str, ImageSet]()
    if with_ood and config.detector is not None:
        try:
            check_sets(config)
        except DataError as error:
            refusals.append(str(error))
        for name in e.ood_sets:
            other = read(partial(_load_ood, config, name), refusals, d.on_error)
            others |= {name: other} if other is not None else {}
    return check_images(images, others, test, refusals)


def _load_ood(config: RunConfig, name: str, on_error: OnError) -> ImageSet:
    settings = config.data.model_copy(update={"on_error": on_error})
    return load_asked_set(config.model_copy(update={"data": settings}), name)


def write_check(work: Workspace, with_ood: bool) -> list[str]:
    """Writes what `check_config` finds, once for a run; returns what a user should know of it, in lines.

    Files: check.json, as `python -m sdviz check --json` prints it; and copies.parquet, a row for each picture
    that repeats another one: set ("" is the training set), id, of (the other one's id), kind (exact or near).
    """
    if (work.folder / CHECK).is_file():
        return []
    found = check_config(work.config, with_ood)
    within = [("", "exact", found.exact), ("", "near", found.near)]
    between = [
        (name, kind, getattr(one, kind)) for name, one in found.others.items() for kind in ("exact", "near")
    ]
    rows = [
        {"set": name, "id": one, "of": of, "kind": kind}
        for name, kind, some in within + between
        for one, of in zip(some.ids.tolist(), some.of.tolist(), strict=True)
    ]
    schema = pa.schema({key: pa.string() for key in ("set", "id", "of", "kind")})
    write_parquet(pa.Table.from_pylist(rows, schema), work.folder / COPIES)
    write_atomically(work.folder / CHECK, json.dumps(found.as_json(), indent=1) + "\n")
    return [f"{found.name}: {line}" for line in found.warnings]


def read_check(folder: Path) -> dict[str, Any] | None:
    """The object in check.json of a run's folder; None if there is none."""
    file = folder / CHECK
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
