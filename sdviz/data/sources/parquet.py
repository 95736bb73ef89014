"""Parquet files in the Hugging Face image layout.

Columns: `img` or `image`, struct{bytes: binary, path: string}; optional labels in `label` or `fine_label`,
whole numbers from 0. Class names are in the schema metadata: a JSON list under `class_names`, or in the feature
types under `huggingface`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..decode import ImageStack
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, OnError, checked_labels, short_hash
from ..source import WHOLE, Choose, Source, no_pictures, path_in, row_ids

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
SPLITS = ("train", "val", "validation", "test", "extra")

_BATCH_ROWS = 1024


def name_and_split(path: Path) -> tuple[str, str]:
    """Name and split of `<name>_<split>.parquet`; for any other file its stem and "all"."""
    name, _, split = path.stem.rpartition("_")
    return (name, split) if name and split in SPLITS else (path.stem, WHOLE)


def has_images(path: Path) -> bool:
    """Whether a file is a readable Parquet file in the image layout."""
    try:
        with pq.ParquetFile(path) as file:
            _layout(path, file)
    except (pa.ArrowException, OSError, DataError):
        return False
    return True


@contextmanager
def _opened(path: Path, name: str) -> Iterator[pq.ParquetFile]:
    """Opens a file; any error while it is read is a DataError."""
    if not path.is_file():
        raise DataError(f"{name}: {path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()
        raise DataError(f"{path} cannot be read as Parquet: {reason[0] if reason else error!r}") from error


@dataclass(frozen=True)
class _Layout:
    """The columns of a file."""

    image: str
    label: str | None
    class_names: tuple[str, ...] | None  # None if the file names no classes


def _layout(path: Path, file: pq.ParquetFile) -> _Layout:
    schema = file.schema_arrow
    image = next((column for column in IMAGE_COLUMNS if column in schema.names), None)
    if image is None:
        raise DataError(f"{path} has no column {' or '.join(IMAGE_COLUMNS)}; it has {', '.join(schema.names)}")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{path}: column {image} must be struct{{bytes, path}}, not {kind}")
    bytes_kind = kind.field("bytes").type
    if not (pa.types.is_binary(bytes_kind) or pa.types.is_large_binary(bytes_kind)):
        raise DataError(f"{path}: column {image}.bytes must be binary, not {bytes_kind}")
    label = next((column for column in LABEL_COLUMNS if column in schema.names), None)
    if label is None:
        return _Layout(image, None, ())
    kind = schema.field(label).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise DataError(f"{path}: column {label} must be whole numbers, not {kind}")
    try:
        return _Layout(image, label, _class_names(schema.metadata or {}, label))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: the class names in its schema metadata cannot be read") from error


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    if b"class_names" in metadata:
        return tuple(str(one) for one in json.loads(metadata[b"class_names"]))
    if b"huggingface" in metadata:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        if "names" in features.get(label, {}):
            return tuple(str(one) for one in features[label]["names"])
    return None


def _labels(path: Path, file: pq.ParquetFile, layout: _Layout) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of all rows, int64 (n,), -1 for null and NaN; and class names, else numbers as names."""
    if layout.label is None:
        return np.full(file.metadata.num_rows, UNKNOWN_LABEL, np.int64), ()
    column = file.read(columns=[layout.label]).column(layout.label)
    values = column.cast(pa.float64()).to_numpy()
    return checked_labels(str(path), values, layout.class_names)


def _pictures(
    file: pq.ParquetFile, column: str, rows: np.ndarray
) -> Iterator[tuple[int, int, bytes | None, str | None]]:
    """Yields (position in `rows`, row, bytes, path) in file order, with one batch in memory."""
    by_row = np.argsort(rows, kind="stable")
    wanted = rows[by_row]
    start = 0
    for group in range(file.metadata.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if np.searchsorted(wanted, start) < np.searchsorted(wanted, end):
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
                low, high = np.searchsorted(wanted, [start, start + len(batch)])
                cells = batch.column(column).take(pa.array(wanted[low:high] - start)).to_pylist()
                for position, row, cell in zip(
                    by_row[low:high].tolist(), wanted[low:high].tolist(), cells, strict=True
                ):
                    cell = cell or {}
                    yield position, row, cell.get("bytes"), cell.get("path")
                start += len(batch)
        start = end


def same_images_table(file: Path, name: str, split: str) -> pa.Table:
    """The table of `same_images.parquet` for a file whose pictures have paths `<class>/<nth>.<ending>`.

    Columns: id, label, and nth, the place in the original order. Raises DataError for other paths.
    """
    with pq.ParquetFile(file) as opened:
        column = next(one for one in IMAGE_COLUMNS if one in opened.schema_arrow.names)
        table = opened.read(columns=[f"{column}.path", "label"])
    paths = [Path(one["path"] or "") for one in table[column].to_pylist()]
    if not all(path.stem.isdecimal() for path in paths):
        raise DataError(f"{file}: a picture's path does not end in its place in the original order")
    ids = [f"{name}/{split}/{row:05d}" for row in range(len(paths))]
    nth = pa.array([int(path.stem) for path in paths], pa.int32())
    return pa.table({"id": ids, "label": table["label"].cast(pa.int16()), "nth": nth})


class ParquetFile(Source):
    """`parquet:PATH`. An id is `parquet/<file's stem>/<row>@<12 hex digits of the picture's SHA-256>`."""

    order = 11
    kinds: tuple[str, ...] = ("parquet",)
    on_form: Mapping[str, tuple[str, str]] = {"parquet": ("a Parquet file", "/home/me/pictures.parquet")}

    def splits(self, name: str) -> tuple[str, ...]:
        return (name_and_split(path_in(name))[1],)

    def load(
        self, name: str, split: str, choose: Choose, size_px: int, on_error: OnError, pictures: bool
    ) -> ImageSet:
        path = self.path(name, split)
        with _opened(path, name) as file:
            layout = _layout(path, file)
            n = file.metadata.num_rows
            if not n:
                raise DataError(f"{path} has no rows")
            rows = choose(n)
            labels, class_names = _labels(path, file, layout)
            ids = row_ids(self.id_prefix(name, split), rows).astype(object)
            if not pictures:
                return ImageSet(name, split, no_pictures(len(rows)), labels[rows], ids.astype(str), class_names)
            stack = ImageStack(len(rows), size_px)
            for position, row, blob, inner_path in _pictures(file, layout.image, rows):
                label = f"row {row} ({inner_path})" if inner_path else f"row {row}"
                if blob is None:
                    stack.refuse(label, "holds no bytes")
                    continue
                stack.add(position, label, blob)
                if self.kinds:
                    ids[position] += f"@{short_hash(blob)}"
        images, good = stack.finish(path.name, on_error)
        known = labels[rows][good], ids[good].astype(str), class_names
        return ImageSet(name, split, images, *known, stack.jpeg_share)

    def count(self, name: str, split: str) -> int:
        with _opened(self.path(name, split), name) as file:
            return int(file.metadata.num_rows)

    def files(self, name: str, split: str) -> list[Path]:
        return [self.path(name, split)]

    def id_prefix(self, name: str, split: str) -> str:
        return f"parquet/{path_in(name).stem}/"

    def name_of(self, path: Path) -> str | None:
        return f"parquet:{path}" if path.is_file() and path.suffix.lower() == ".parquet" else None

    def path(self, name: str, split: str) -> Path:
        """The file of a set."""
        return path_in(name)


SOURCE = ParquetFile()
