"""Parquet files in the Hugging Face image layout, one or many for a set.

Pictures are in `img` or `image`, else in the only column of that kind: struct{bytes: binary, path: string} or
plain bytes. Optional labels are in `label`, `labels`, `fine_label` or `coarse_label`: whole numbers from 0,
words, or true and false. Class names are in the schema metadata: a JSON list under `class_names`, or in the
feature types under `huggingface`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from glob import has_magic
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...text import writable
from ..found import Found
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, short_hash
from ..layouts.columns import IMAGE_COLUMNS, Columns, columns_of, is_words
from ..layouts.labels import checked_labels, class_words, numbered
from ..layouts.shards import files_of, siblings
from ..levels import SAMPLE
from ..source import (
    WHOLE,
    Choose,
    Source,
    address,
    exists,
    no_pictures,
    only_asked,
    path_in,
    reading_of,
    row_ids,
    sample_order,
)  # fmt: skip
from ..stack import ImageStack, Reading, extremes_of
from .folder import read_file

_BATCH_ROWS = 1024


def has_images(path: Path) -> bool:
    """Whether a file is a readable Parquet file in the image layout."""
    try:
        with _opened(path) as file:
            columns_of(str(path), file.schema_arrow, {})
    except DataError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Opens a file; any error while it is read is a DataError."""
    with reading_of(f"{path} cannot be read as Parquet"), pq.ParquetFile(path) as file:
        yield file


class _Table:
    """The files of a split, read as one table."""

    def __init__(self, paths: tuple[Path, ...], options: Mapping[str, str], stack: ExitStack) -> None:
        self.paths = paths
        self.files = [stack.enter_context(_opened(path)) for path in paths]
        found = [
            columns_of(str(path), file.schema_arrow, options)
            for path, file in zip(paths, self.files, strict=True)
        ]
        self.columns: Columns = found[0]
        for path, columns in zip(paths, found, strict=True):
            if (columns.names, columns.class_names) != (self.columns.names, self.columns.class_names):
                raise DataError(f"{path} has other columns or classes than {paths[0].name}")
        self.starts = np.cumsum([0, *(file.metadata.num_rows for file in self.files)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def words(self) -> list[str | None] | None:
        """The labels of all rows, if they are words."""
        label = self.columns.label
        if label is None or not is_words(self.files[0].schema_arrow.field(label).type):
            return None
        found = [file.read(columns=[label]).column(label).to_pylist() for file in self.files]
        return [None if one is None else str(one) for column in found for one in column]

    def numbers(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """The labels of all rows, int64 (n,), -1 for null and NaN; and class names, else numbers as names."""
        label = self.columns.label
        if label is None:
            return np.full(len(self), UNKNOWN_LABEL, np.int64), ()
        parts = []
        for file in self.files:
            column = file.read(columns=[label]).column(label)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            parts.append(column.cast(pa.float64()).to_numpy())
        values = np.concatenate(parts)
        return checked_labels(str(self.paths[0]), values, self.columns.class_names)

    def pictures(self, rows: np.ndarray) -> Iterator[tuple[int, int, bytes | None, str | None]]:
        """Yields (position in `rows`, row, bytes, path) in file order, with one batch in memory."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        for number, file in enumerate(self.files):
            at = np.flatnonzero(shard == number)
            start = int(self.starts[number])
            for position, row, blob, path in _pictures(file, self.columns.image, rows[at] - start):
                if blob is None and path:  # some exports keep the path alone
                    blob = _beside(self.paths[number], path)
                yield int(at[position]), row + start, blob, path

    def blobs(self, rows: np.ndarray) -> Iterator[bytes]:
        """The pictures of some rows."""
        yield from (blob for _, _, blob, _ in self.pictures(rows) if blob is not None)


def _beside(table: Path, path: str) -> bytes | None:
    try:
        return read_file(table.parent / path)
    except (OSError, ValueError):
        return None


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
                    if not isinstance(cell, dict):
                        cell = {"bytes": cell}
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
    """`parquet:PATH` of a file, a folder of shards or a pattern, also with `:SPLIT` or `?label=COLUMN`.

    An id is `parquet/<file's stem>/<row>@<12 hex digits of the picture's SHA-256>`; of several files
    `parquet/<folder's name>/<split>/<row>@...`, rows counted over them.
    """

    order = 11
    kinds: tuple[str, ...] = ("parquet",)
    options = ("label", "image")
    on_form: Mapping[str, tuple[str, str]] = {"parquet": ("a Parquet file", "/home/me/pictures.parquet")}

    def splits(self, name: str) -> tuple[str, ...]:
        path = path_in(name)
        if not exists(path) and not has_magic(str(path)):
            return (WHOLE,)
        return only_asked(name, tuple(files_of(path)))

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        options = self._options(name)
        with ExitStack() as stack_of_files:
            every, warnings = {}, []
            for one, paths in self.files(name).items():
                try:
                    every[one] = _Table(paths, options, stack_of_files)
                except DataError as error:
                    if one == split:
                        raise
                    warnings.append(f"split {one}: {error}")
            table = every[split]
            others = [one for one in every if every[one].columns.class_names != table.columns.class_names]
            warnings += [f"split {one} names other classes than split {split}" for one in others]
            n = len(table)
            if not n:
                raise DataError(f"{table.paths[0]} has no rows")
            words = table.words()
            if words is None:
                labels, class_names = table.numbers()
            else:
                # the classes of all splits, so that labels agree between them
                class_names = class_words(word for one in every.values() for word in one.words() or ())
                labels = numbered(words, class_names)
            rows = choose(n)
            ids = row_ids(self.id_prefix(name, split), rows).astype(object)
            if not reading.pictures:
                return ImageSet(name, split, no_pictures(len(rows)), labels[rows], ids.astype(str), class_names)

            def blobs() -> Iterator[bytes]:
                starts = np.cumsum([0, *map(len, every.values())])
                order = sample_order(int(starts[-1]))
                for first in range(0, len(order), SAMPLE):
                    some = order[first : first + SAMPLE]
                    for start, one in zip(starts.tolist(), every.values(), strict=False):
                        yield from one.blobs(some[(some >= start) & (some < start + len(one))] - start)

            stack = ImageStack(len(rows), reading, lambda: extremes_of(blobs()))
            for position, row, blob, inner_path in table.pictures(rows):
                label = f"row {row} ({inner_path})" if inner_path else f"row {row}"
                if blob is None:
                    stack.refuse(label, "holds no bytes")
                    continue
                stack.add(position, label, blob)
                if self.kinds:
                    ids[position] += f"@{short_hash(blob)}"
            beside = self._beside(name, every, warnings, table.columns.note)
        images, good = stack.finish(writable(table.paths[0].name) if len(table.paths) == 1 else name)
        known = labels[rows][good], ids[good].astype(str), class_names
        return ImageSet(name, split, images, *known, stack.jpeg_share, stack.found(beside))

    def count(self, name: str, split: str) -> int:
        n = 0
        for path in self.files(name)[split]:
            with _opened(path) as file:
                n += int(file.metadata.num_rows)
        return n

    def paths(self, name: str, split: str) -> tuple[Path, ...]:
        return self.files(name)[split]

    def id_prefix(self, name: str, split: str) -> str:
        path = path_in(name)
        if path.is_file():
            return f"parquet/{writable(path.stem)}/"
        folder = path if path.is_dir() else path.parent
        return f"parquet/{writable(folder.absolute().name)}/{split}/"

    def name_of(self, path: Path) -> str | None:
        return f"parquet:{path}" if path.is_file() and path.suffix.lower() == ".parquet" else None

    def files(self, name: str) -> Mapping[str, tuple[Path, ...]]:
        """split -> the files of a set."""
        return files_of(path_in(name))

    def _options(self, name: str) -> Mapping[str, str]:
        options = address(name).options if self.kinds else {}
        for key in options:
            if key not in self.options:
                raise DataError(f"{name}: no option {key}; there are {', '.join(self.options)}")
        return options

    def _beside(self, name: str, every: Mapping[str, _Table], warnings: list[str], note: str) -> Found:
        if note:
            warnings.append(note)
        if self.kinds and (path := path_in(name)).is_file() and (others := siblings(path)):
            whole = f"parquet:{writable(str(path.parent))}"
            warnings.append(f"one of {len(others) + 1} files of its set: {whole} takes all")
        sizes = {split: len(table) for split, table in every.items()}
        return Found(splits=sizes, warnings=tuple(warnings))


SOURCE = ParquetFile()
