"""Reads and writes the training labels of a run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...data import DataError, ImageSet
from ...files import parse_json
from ...table_files import read_csv, write_parquet
from ...text import message_line
from ..workspace import PipelineError, Workspace

GIVEN = ("ground_truth", "file")  # values of labels.source without clustering


def given_labels(work: Workspace) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels from the data set or from a file, int64 (N,), and their class names.

    Raises:
        DataError: A missing label, fewer than two classes, or a class without an image.
    """
    images = work.images
    if work.config.labels.source == "file":
        labels, names = _from_file(work)
    else:
        labels, names = images.labels, images.class_names
        if unlabelled := int((labels < 0).sum()):
            raise DataError(
                f"{images.name}: {unlabelled} of {len(images)} images have no label, and labels.source is"
                " ground_truth"
            )
    if len(names) < 2:
        raise DataError(f"{images.name}: outliers need at least 2 classes, there is {len(names)}")
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        missing = names[int(counts.argmin())]
        raise DataError(f"{images.name}: no image of class {missing!r} among the {len(images)} to train on")
    return labels, names


def _from_file(work: Workspace) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads labels by id from the user's table; class names are numbered in alphabetical order."""
    path = Path(os.path.expanduser(work.config.labels.path or ""))
    known = read_label_table(path)
    ids = work.images.ids.tolist()
    missing = [one for one in ids if one not in known]
    if missing:
        raise DataError(f"{path}: no label for {len(missing)} of {len(ids)} images, as {missing[0]}")
    for one in ids:
        where, label = known[one]
        if not label or (_NUMBER.fullmatch(label) and not label.isdecimal()):
            fault = f"is {label or 'empty'}, not a word or a whole number from 0"
            raise DataError(f"{path}, {where}: the label of {one} {fault}")
    given = [known[one][1] for one in ids]
    numeric = all(one.isdecimal() for one in given)
    if numeric:  # 07 is 7
        given = [str(int(one)) for one in given]
    values = sorted(set(given), key=int if numeric else str)
    names = tuple(f"cluster {v}" if numeric else v for v in values)
    number = {value: i for i, value in enumerate(values)}
    return np.array([number[one] for one in given], np.int64), names


# any number, or NaN: tables hold NaN for a missing label, and 1.0 where they turned labels into decimals
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|nan", re.IGNORECASE)


def read_label_table(path: Path) -> dict[str, tuple[str, str]]:
    """Reads a Parquet or CSV table: id -> (line or row, label). DataError without columns id and label."""
    try:
        if path.suffix == ".parquet":
            columns = pq.read_table(path, columns=["id", "label"]).to_pydict()
            rows = zip(columns["id"], columns["label"], strict=True)
            found = [(str(one), f"row {i}", label) for i, (one, label) in enumerate(rows, 1)]
        else:
            table = read_csv(path)
            where = [f"line {line}" for line in table.lines]
            found = [*zip(table.column("id"), where, table.column("label"), strict=True)]
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{message_line(path)}: not a table with columns id and label") from error
    return {one: (where, "" if label is None else str(label).strip()) for one, where, label in found}


def write_labels(work: Workspace, labels: np.ndarray, confidence: np.ndarray, names: tuple[str, ...]) -> None:
    """Writes pseudo_labels/pseudo_labels.parquet: id, label, confidence, and the names as metadata."""
    table = pa.table({"id": work.images.ids.tolist(), "label": labels, "confidence": confidence})
    table = table.replace_schema_metadata({"cluster_names": json.dumps(names)})
    work.stage_folder("pseudo_labels")
    write_parquet(table, labels_path(work))


def labels_path(work: Workspace) -> Path:
    """The file with the training labels."""
    return work.folder / "pseudo_labels" / "pseudo_labels.parquet"


def read_labels(work: Workspace) -> np.ndarray:
    """The training labels y~, int64 (N,), row by row with `work.images`."""
    table = pq.read_table(labels_path(work))
    if table["id"].to_pylist() != work.images.ids.tolist():
        raise PipelineError(f"{work.images.name} has other images now than when {work.folder} was begun")
    return table["label"].to_numpy().astype(np.int64)


def source_labels(work: Workspace) -> np.ndarray:
    """The training labels y~ of `work.sources`, int64 (N,)."""
    return read_labels(work)[work.source_rows]


def read_cluster_names(work: Workspace) -> tuple[str, ...]:
    """A name for each cluster."""
    metadata = pq.read_schema(labels_path(work)).metadata or {}
    return tuple(parse_json(metadata[b"cluster_names"]))


def labelled_test(work: Workspace) -> ImageSet | None:
    """The test images not trained on; None unless they are labelled with the training set's classes."""
    test = work.unseen_test
    if test is None or test.class_names != work.images.class_names or not (test.labels >= 0).any():
        return None
    return test
