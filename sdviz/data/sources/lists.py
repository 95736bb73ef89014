"""Lists of picture files with their labels: `csv:PATH` and `tsv:PATH`.

The first row names the columns. Paths are in `path`, `file_name`, `image` and the like, labels in `label`,
`class` and the like, and a column `split` makes splits; else they are named by
`csv:PATH?path=COLUMN&label=COLUMN`. Two columns without names are paths and labels. A path is relative to the
list's folder, or to one in it that is called as the list or `images`; its suffix may be missing.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...table_files import as_written, without_comments
from ...text import writable
from ..formats import readable
from ..found import Found
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, short_hash
from ..layouts.labels import class_words, numbered
from ..layouts.split_names import in_order, split_of
from ..source import (
    WHOLE,
    Choose,
    Source,
    address,
    exists,
    only_asked,
    path_in,
    reading_of,
    row_ids,
    sample_order,
    unescaped,
)
from ..stack import ImageStack, Reading, extremes_of
from .folder import read_file

_PATH_COLUMNS = (
    "path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "img_path", "image", "img",
    "image_name", "image_file", "image_id", "img_id", "id", "name",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y", "diagnosis", "species")
_SPLIT_COLUMNS = ("split", "subset", "partition", "set", "fold")
_DELIMITERS = ",;\t"
_LARGEST = 500_000_000  # bytes


@dataclass(frozen=True)
class _List:
    """The rows of a list."""

    paths: list[str]
    words: list[str] | None  # labels; None if there is no such column
    splits: list[str]
    note: str  # a choice that the user should know of

    def rows(self, split: str) -> list[int]:
        return [row for row, one in enumerate(self.splits) if one == split]


def _read(name: str) -> _List:
    where = address(name)
    path = where.path
    if not path.is_file():
        raise DataError(f"{name}: {path} {'is not a file' if exists(path) else 'does not exist'}")
    for key in where.options:
        if key not in SOURCE.options:
            raise DataError(f"{name}: no option {key}; there are {', '.join(SOURCE.options)}")
    with reading_of(f"{path} cannot be read as a list"):
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is larger than {_LARGEST:,} bytes")
        text = without_comments(_text(path.read_bytes()))
        first = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    if not rows:
        raise DataError(f"{path} is empty")
    return _columns(path, [[as_written(cell.strip()) for cell in row] for row in rows], where.options)


def _text(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # Excel's "Unicode text"
        return content.decode("utf-16")
    # a byte-order mark, as Excel writes it, is no part of a name; other bytes than UTF-8 may be in paths
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _columns(path: Path, rows: list[list[str]], options: Mapping[str, str]) -> _List:
    head = [cell.lower() for cell in rows[0]]
    at = {
        "path": _chosen(path, head, options.get("path"), _PATH_COLUMNS),
        "label": _chosen(path, head, options.get("label"), _LABEL_COLUMNS),
        "split": _chosen(path, head, options.get("split"), _SPLIT_COLUMNS),
    }
    note = ""
    if at["path"] is None:
        if len(head) > 2 or _file_of(path, rows[0][0], readable().suffixes) is None:
            raise DataError(
                f"{path}: no column {', '.join(_PATH_COLUMNS[:4])} or image; it has {', '.join(rows[0])}; name"
                f" one, as csv:PATH?path=COLUMN"
            )
        at = {"path": 0, "label": 1 if len(head) == 2 else None, "split": None}
        note = "without names of columns: the first is taken for paths, the second for labels"
    else:
        rows = rows[1:]
        others = [one for i, one in enumerate(head) if i not in at.values()]
        if at["label"] is None and others:
            note = (
                f"no column {', '.join(_LABEL_COLUMNS[:3])}: pictures have no class; csv:PATH?label=COLUMN"
                f" takes one of {', '.join(others)}"
            )
    short = next((row for row in rows if len(row) <= max(i for i in at.values() if i is not None)), None)
    if short is not None:
        raise DataError(f"{path}: a row has fewer columns than the first: {', '.join(short)}")
    if not rows:
        raise DataError(f"{path} lists no pictures")
    label, split = at["label"], at["split"]
    return _List(
        [row[at["path"] or 0] for row in rows],
        None if label is None else [row[label] for row in rows],
        [WHOLE if split is None else split_of(row[split]) or writable(row[split]) or WHOLE for row in rows],
        note,
    )


def _chosen(path: Path, head: list[str], asked: str | None, known: tuple[str, ...]) -> int | None:
    if asked is not None:
        if asked.lower() not in head:
            raise DataError(f"{path} has no column {asked}; it has {', '.join(head)}")
        return head.index(asked.lower())
    return next((head.index(one) for one in known if one in head), None)


def _file_of(table: Path, inside: str, suffixes: frozenset[str]) -> Path | None:
    """The picture that a list names; None if there is none."""
    inside = inside.replace("\\", "/")
    for folder in (table.parent, table.with_suffix(""), table.parent / "images"):
        whole = unescaped(folder / inside)
        if os.path.isfile(whole):
            return whole
        if whole.suffix.lower() not in suffixes:
            for suffix in (".jpg", ".png", ".jpeg", *sorted(suffixes)):
                if os.path.isfile(f"{whole}{suffix}"):
                    return Path(f"{whole}{suffix}")
    return None


class Lists(Source):
    """`csv:PATH` and `tsv:PATH`: pictures in the order of the list.

    An id is `csv/<list's stem>/<row>@<12 hex digits of the file's SHA-256>`; with splits it is
    `csv/<list's stem>/<split>/<row in the split>@...`.
    """

    order = 13
    kinds = ("csv", "tsv")
    options = ("path", "label", "split")
    on_form: Mapping[str, tuple[str, str]] = {"csv": ("a list of pictures", "/home/me/pictures.csv")}

    def splits(self, name: str) -> tuple[str, ...]:
        if not exists(path_in(name)):
            return (WHOLE,)
        return only_asked(name, in_order(dict.fromkeys(_read(name).splits)))

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        table = _read(name)
        listed = table.rows(split)
        names = class_words(table.words or ())
        all_labels = (
            np.full(len(table.paths), UNKNOWN_LABEL) if table.words is None else numbered(table.words, names)
        )
        rows = choose(len(listed))
        chosen = np.array(listed, np.int64)[rows]
        ids = row_ids(self.id_prefix(name, split), rows).astype(object)
        path, suffixes = path_in(name), readable().suffixes

        def blobs() -> Iterator[bytes]:
            for row in sample_order(len(table.paths)).tolist():
                if (file := _file_of(path, table.paths[row], suffixes)) is not None:
                    yield read_file(file)

        stack = ImageStack(len(chosen), reading, lambda: extremes_of(blobs()))
        sizes = {one: len(table.rows(one)) for one in in_order(dict.fromkeys(table.splits))}
        beside = Found(splits=sizes, warnings=(table.note,) if table.note else ())
        if not reading.pictures:
            return ImageSet(name, split, stack.images, all_labels[chosen], ids.astype(str), names, None, beside)
        for position, row in enumerate(chosen.tolist()):
            inside = table.paths[row]
            file = _file_of(path, inside, suffixes)
            if file is None:
                stack.refuse(inside, "is not there")
                continue
            try:
                blob = read_file(file)
            except OSError as error:
                stack.refuse(inside, f"cannot be read: {error.strerror}")
                continue
            stack.add(position, inside, blob)
            ids[position] += f"@{short_hash(blob)}"
        images, good = stack.finish(name)
        known = all_labels[chosen][good], ids[good].astype(str), names
        return ImageSet(name, split, images, *known, stack.jpeg_share, stack.found(beside))

    def count(self, name: str, split: str) -> int:
        return len(_read(name).rows(split))

    def paths(self, name: str, split: str) -> list[Path]:
        table, path, suffixes = _read(name), path_in(name), readable().suffixes
        files = (_file_of(path, table.paths[row], suffixes) for row in table.rows(split))
        return [file for file in files if file is not None]

    def paths_of(self, name: str, ids: Sequence[str]) -> list[Path | None]:
        table, path, suffixes = _read(name), path_in(name), readable().suffixes
        rows = {split: table.rows(split) for split in dict.fromkeys(table.splits)}
        files = []
        for one in ids:
            split = next((it for it in rows if it != WHOLE and one.startswith(self.id_prefix(name, it))), WHOLE)
            row = int(one.removeprefix(self.id_prefix(name, split)).partition("@")[0])
            files.append(_file_of(path, table.paths[rows[split][row]], suffixes))
        return files

    def id_prefix(self, name: str, split: str) -> str:
        stem = f"{name.partition(':')[0]}/{writable(path_in(name).stem)}/"
        return stem if split == WHOLE else f"{stem}{split}/"

    def name_of(self, path: Path) -> str | None:
        kind = path.suffix.lower().removeprefix(".")
        if kind not in self.kinds or not path.is_file():
            return None
        try:
            _read(f"{kind}:{path}")
        except DataError:  # a table of something else
            return None
        return f"{kind}:{path}"


SOURCE = Lists()
