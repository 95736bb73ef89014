"""Scores images by a bundle, into a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ...bundle import Bundle
from ...data import ImageSet
from ...evaluation import OODReference, ood_reference, score_table
from ...files import replacing
from ..workspace import PipelineError

IMAGES_AT_ONCE = 1024
ENDINGS = (".csv", ".parquet")


def id_reference(bundle: Bundle) -> OODReference:
    """The scores of the bundle's ID test images; PipelineError if it has no scores.parquet."""
    if "scores.parquet" not in bundle.parts:
        raise PipelineError("this bundle has no scores.parquet: it was never measured, and knows no threshold")
    table = pq.read_table(bundle.parts["scores.parquet"], columns=["role", "total"])
    return ood_reference(table.filter(pc.equal(table["role"], "id"))["total"].to_numpy())


def score_images(
    bundle: Bundle, images: ImageSet, on_progress: Callable[[int, int], None] | None = None
) -> pa.Table:
    """Scores each image by Eq. 6; the columns are those of `sdviz.evaluation.score_table`.

    An image whose id is in the bundle's ID bank is not its own neighbour.

    Raises:
        PipelineError: The bundle lacks a detector, its features or its scores.
    """
    try:
        scorer, bank_ids = bundle.scorer, bundle.banks().id_ids
    except ValueError as error:
        raise PipelineError(str(error)) from error
    reference = id_reference(bundle)
    tables = []
    for first in range(0, len(images), IMAGES_AT_ONCE):
        part = images.take(np.arange(first, min(first + IMAGES_AT_ONCE, len(images))))
        scores = scorer.score(bundle.features(part.images), ids=part.ids)
        tables.append(score_table(part.ids, scores, bank_ids, reference))
        if on_progress is not None:
            on_progress(min(first + IMAGES_AT_ONCE, len(images)), len(images))
    return pa.concat_tables(tables)


def check_table_name(path: Path) -> None:
    """Raises PipelineError for a name that does not end in .csv or .parquet."""
    if path.suffix.lower() not in ENDINGS:
        raise PipelineError(f"{path}: a table of scores is {' or '.join(ENDINGS)}, by the end of its name")


def write_scores(table: pa.Table, path: Path) -> None:
    """Writes a table of scores as CSV or Parquet, by the end of the name, whole or not at all."""
    check_table_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        if path.suffix.lower() == ".parquet":
            pq.write_table(table, partial)
        else:
            pyarrow.csv.write_csv(table, partial)
