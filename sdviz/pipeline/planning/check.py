"""Checks the images of a run as `python -m sdviz check` does, and keeps what was found in the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from ... import data
from ...config.tree import RunConfig
from ...data.check import Check, check_images
from ...files import write_atomically
from ..shared.sets import load_asked_set
from ..workspace import Workspace, test_split, write_table

CHECK, COPIES = "check.json", "copies.parquet"


def check_config(config: RunConfig, with_ood: bool = True) -> Check:
    """Checks the training set, with its test split and the OOD sets.

    Raises:
        DataError: A set cannot be read.
    """
    d, e = config.data, config.evaluation
    images = data.load(d.id, d.split, d.limit, config.seed, d.on_error, d.size_px)
    split = test_split(d)
    test = None if split is None else data.load(d.id, split, on_error=d.on_error, size_px=d.size_px)
    names = e.ood_sets if with_ood and config.detector is not None else ()
    return check_images(images, {name: load_asked_set(config, name) for name in names}, test)


def write_check(work: Workspace, with_ood: bool) -> None:
    """Writes what `check_config` finds, once for a run.

    Files: check.json, as `python -m sdviz check --json` prints it; and copies.parquet, a row for each picture
    that repeats another one: set ("" is the training set), id, of (the other one's id), kind (exact or near).
    """
    if (work.folder / CHECK).is_file():
        return
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
    write_table(pa.Table.from_pylist(rows, schema), work.folder / COPIES)
    write_atomically(work.folder / CHECK, json.dumps(found.as_json(), indent=1) + "\n")


def read_check(folder: Path) -> dict[str, Any] | None:
    """The object in check.json of a run's folder; None if there is none."""
    file = folder / CHECK
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
