"""The one writer of CSV and of Parquet, and the reader of CSV.

A CSV is UTF-8 with a byte-order mark, so that spreadsheets read its letters. Texts are in quotes, numbers not;
a list is JSON; nothing and NaN are empty. A text that a spreadsheet would run as a formula has an apostrophe in
front, which `read_csv` takes away. Lines that begin with "# " may stand above the header.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .files import replacing
from .text import LineError, one_line, short_line, writable

_BOM = "\ufeff"
_STARTS_FORMULA = ("=", "+", "-", "@")
_COMMENTS = re.compile(r"(?:# [^\n]*(?:\n|$))*+")
# where a spreadsheet begins a new cell in a line without quotes
_NEW_CELL = re.compile(r"([,;]\s*)")
# the first cell, and what stands between cells
_FIRST_CELL = re.compile(r'(?:"(?:[^"]|"")*+"|[^",;\t\r\n])*+([,;\t]?)')


def csv_text(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    provenance: Mapping[str, str] | None = None,
    title: str = "",
) -> str:
    """Writes a table as CSV; its first character is the byte-order mark.

    Args:
        rows: Texts, numbers, truth values, None, and lists or arrays of them.
        provenance: One line "# key: value" above the header for each item.
        title: The first of these lines, "" for none.
    """
    above = [title] if title else []
    above += [f"{key}: {value}" for key, value in (provenance or {}).items()]
    lines = [*map(_comment, above), *(",".join(map(_cell, row)) for row in [header, *rows])]
    return _BOM + writable("".join(f"{line}\n" for line in lines))


def _comment(text: str) -> str:
    # a quote at the start of a cell would hold all lines up to the next one
    cells = [f"'{one}" if one.startswith('"') else harmless(one) for one in _NEW_CELL.split(one_line(text))]
    return f"# {''.join(cells)}"


def _cell(value: object) -> str:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        value = json.dumps(value, ensure_ascii=False)
    text = harmless(str(value)).replace('"', '""')
    return f'"{text}"'


def harmless(text: str) -> str:
    """The text with an apostrophe in front if a spreadsheet would run it.

    Such a text begins with =, +, -, @ or another form of these, as the full-width, also after blanks; or with a
    tab or a line break. Apostrophes in front of these count as part of the text, so that `as_written` is exact.
    """
    return f"'{text}" if _would_run(text) else text


def as_written(cell: str) -> str:
    """The text that `harmless` was given."""
    return cell[1:] if cell.startswith("'") and _would_run(cell) else cell


def _would_run(text: str) -> bool:
    text = text.lstrip("'")
    # blanks, control characters and marks without a width
    seen = next((c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf")), "")
    return text[:1] in ("\t", "\r", "\n") or unicodedata.normalize("NFKC", seen)[:1] in _STARTS_FORMULA


class TableError(LineError):
    """A table that cannot be read; the message is one line."""


@dataclass(frozen=True)
class CsvTable:
    """A CSV that was read."""

    header: list[str]
    rows: list[list[str]]  # each as long as the header
    lines: list[int]  # the line of the file that each row ends in, from 1

    def column(self, name: str) -> list[str]:
        """The cells of a column. Raises TableError: no such column, or two."""
        self._check_once(name)
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def records(self) -> list[dict[str, str]]:
        """The rows by the names of the columns. Raises TableError: two columns have the same name."""
        for name in self.header:
            self._check_once(name)
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]

    def _check_once(self, name: str) -> None:
        if self.header.count(name) != 1:
            n = "no column" if name not in self.header else "more than one column"
            raise TableError(f"{n} {short_line(name)}; it has {short_line(', '.join(self.header))}")


def read_csv(path: Path) -> CsvTable:
    """Reads a CSV as `csv_text` writes it, or with ; or tabs between cells, as spreadsheets may save it.

    Raises:
        TableError: Not UTF-8, no header, or a row of another length; the message has the line.
        OSError: The file cannot be read.
    """
    try:
        whole = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"not UTF-8: {error}") from error
    text = without_comments(whole)
    above = whole[: len(whole) - len(text)].count("\n")
    after_first = _FIRST_CELL.match(text)
    assert after_first is not None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=after_first[1] or ",", strict=True)
    rows, lines = [], []
    try:
        header = [as_written(cell) for cell in next(reader, [])]
        for row in reader:
            if row:
                rows.append([as_written(cell) for cell in row])
                lines.append(above + reader.line_num)
    except csv.Error as error:
        raise TableError(f"line {above + reader.line_num}: {error}") from error
    if not any(header):
        raise TableError("it has no header")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise TableError(f"line {line}: {len(row)} cells under {len(header)} names")
    return CsvTable(header, rows, lines)


def without_comments(text: str) -> str:
    """A CSV's text without the lines "# ..." above its header."""
    comments = _COMMENTS.match(text)
    assert comments is not None
    return text[comments.end() :]


def text_array(texts: Sequence[str]) -> np.ndarray:
    """Texts as str (N,). Raises ValueError: one ends in a NUL, which NumPy would drop."""
    for row, text in enumerate(texts):
        if text.endswith("\0"):
            raise ValueError(f"the text {short_line(text)!r} in row {row + 1} ends in a NUL")
    return np.array(texts, dtype=str)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Writes a table as Parquet, whole or not at all; a column of lists stays one."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")
