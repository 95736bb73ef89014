"""Scores images by a bundle and writes the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...bundle import Bundle
from ...bundle.parts import numbers, reading, texts
from ...bundle.threshold import reference_of
from ...data import ImageSet
from ...data.sources import sources_of
from ...evaluation import OODReference, score_table
from ...files import write_atomically
from ...nn.batches import slices
from ...table_files import csv_text, write_parquet
from ...text import writable
from ..workspace import PipelineError

IMAGES_AT_ONCE = 1024
ENDINGS = (".csv", ".parquet")


def id_reference(bundle: Bundle) -> OODReference:
    """The scores of the bundle's ID test images.

    Raises:
        PipelineError: It has no scores.parquet.
        BundleError: That cannot be read.
    """
    if "scores.parquet" not in bundle.parts:
        raise PipelineError("this bundle has no scores.parquet: it was never measured, and knows no threshold")
    with reading(bundle.parts["scores.parquet"]) as file:
        table = pq.read_table(file, columns=["role", "total"])
        scores = numbers(table["total"], np.float64)[texts(table["role"]) == "id"]
        return reference_of(bundle, scores)


def picture_paths(images: ImageSet) -> list[str]:
    """The file of each image, "" for a set without a path; bytes that are no UTF-8 stand as %E9."""
    source = next(iter(sources_of(images.name)))
    paths = source.paths_of(images.name, images.ids.tolist())
    return [writable(str(path)) if path is not None else "" for path in paths]


def score_images(
    bundle: Bundle, images: ImageSet, on_progress: Callable[[float], None] | None = None
) -> pa.Table:
    """Scores images by Eq. 6; the columns are those of `sdviz.evaluation.score_table`.

    An image of the bundle's ID bank, known by its id, is not its own neighbour.

    Args:
        on_progress: Gets the share of images done, 0..1.

    Raises:
        PipelineError: The bundle has no detector, banks or scores.
    """
    try:
        scorer, bank_ids = bundle.scorer, bundle.banks().id_ids
    except ValueError as error:
        raise PipelineError(str(error)) from error
    reference, paths = id_reference(bundle), picture_paths(images)
    tables = []
    for some in slices(len(images), IMAGES_AT_ONCE, on_progress):
        ids = images.ids[some]
        scores = scorer.score(bundle.features(images.images[some]), ids=ids)
        tables.append(score_table(ids, paths[some], scores, bank_ids, reference))
    return pa.concat_tables(tables)


def check_table_name(path: Path) -> None:
    """Raises PipelineError for a name that does not end in .csv or .parquet."""
    if path.suffix.lower() not in ENDINGS:
        raise PipelineError(f"{path}: a table of scores is {' or '.join(ENDINGS)}, by the end of its name")


def write_scores(table: pa.Table, path: Path) -> None:
    """Writes a table of scores as CSV or Parquet, by the end of the name, whole or not at all."""
    check_table_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".parquet":
        write_parquet(table, path)
    else:
        columns = table.to_pydict()
        write_atomically(path, csv_text([*columns], zip(*columns.values(), strict=True)))
