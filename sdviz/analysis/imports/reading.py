"""Reads others' scores or features from a CSV, Parquet or npz file, and finds its rows in a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...table_files import read_csv, text_array
from ...text import LineError, one_line, short_line
from ..tables import OUTLIERS, TRAIN, Evidence, or_none

SUFFIXES = (".csv", ".parquet", ".npz")
_NUMBERED = re.compile(r"feature[_ ]?([0-9]{1,6})")


class ImportProblem(LineError):
    """A file that cannot be imported, or an import that is not there; the message is one line."""


@dataclass(frozen=True, eq=False)
class Given:
    """The rows of a file."""

    ids: np.ndarray  # str (N,)
    sets: np.ndarray  # str (N,)
    scores: np.ndarray | None  # float64 (N,), NaN for an empty cell
    features: np.ndarray | None  # float32 (N,D)
    places: Sequence[str]  # where each row stands, as "line 3"

    def rows_of(self, evidence: Evidence) -> dict[str, np.ndarray]:
        """The rows of each set that the file has, in the bundle's order of images.

        The sets are those of scores.parquet, and the two banks, `TRAIN` and `OUTLIERS`.

        Raises:
            ImportProblem: A set or an id that the bundle lacks, an id given twice, or images that are missing.
        """
        known = {name: one.ids for name, one in evidence.sets.items()}
        if (banks := or_none(lambda: evidence.banks)) is not None:
            known |= {TRAIN: banks.id_ids, OUTLIERS: banks.outlier_ids}
        for row in np.flatnonzero(~np.isin(self.sets, list(known)))[:1]:
            raise self.problem(row, f"no set {_shown(self.sets[row])} here, only {', '.join(known)}")
        all_rows = {name: np.flatnonzero(self.sets == name) for name in known}
        return {name: self._in_order(name, rows, known[name]) for name, rows in all_rows.items() if len(rows)}

    def _in_order(self, name: str, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The rows of one set in the order of `ids`."""
        row_of: dict[str, int] = {}
        known = set(ids.tolist())
        for row, one in zip(rows.tolist(), self.ids[rows].tolist(), strict=True):
            if one not in known:
                raise self.problem(row, f"{name} has no image {_shown(one)}")
            if one in row_of:
                raise self.problem(row, f"the image {_shown(one)} of {name} is given twice")
            row_of[one] = row
        missing = [one for one in ids.tolist() if one not in row_of]
        if missing:
            n = f"{len(missing):,} of the {len(ids):,} images of {name}"
            raise ImportProblem(f"{n} are missing, as {_shown(missing[0])}")
        return np.array([row_of[one] for one in ids.tolist()])

    def problem(self, row: int, what: str) -> ImportProblem:
        """The error for a row."""
        return ImportProblem(f"{self.places[row]}: {what}")


def _shown(text: object) -> str:
    return repr(short_line(str(text)))


def read_given(path: Path) -> Given:
    """Reads a file with `id`, `set`, and `score` or `feature`, or both.

    - CSV: `feature` is a JSON list in each row, or there are columns feature_0, feature_1, ...
    - Parquet: `feature` is a column of lists.
    - npz: arrays `id` (N,), `set` (N,), `score` (N,), `feature` (N,D).

    Raises:
        ImportProblem: No such file, another format, a missing column, or values that are no finite numbers.
    """
    readers = {".csv": _from_csv, ".parquet": _from_parquet, ".npz": _from_npz}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ImportProblem(f"its name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not path.is_file():
        raise ImportProblem("no such file")
    try:
        given = read(path)
    except ImportProblem:
        raise
    except OSError as error:
        raise ImportProblem(f"cannot be read: {error.strerror or one_line(error)}") from error
    except Exception as error:  # for altered bytes libraries raise anything
        raise ImportProblem(f"cannot be read: {one_line(error)[:200] or type(error).__name__}") from error
    if not len(given.ids):
        raise ImportProblem("has no rows")
    if given.scores is not None and np.isinf(given.scores).any():
        row = int(np.flatnonzero(np.isinf(given.scores))[0])
        raise given.problem(row, "the score is not a finite number")
    if given.features is not None:
        if given.features.shape[1] < 2:
            raise ImportProblem(f"features need 2 numbers an image at least, not {given.features.shape[1]}")
        for row in np.flatnonzero(~np.isfinite(given.features).all(1))[:1]:
            raise given.problem(row, "a feature is not a finite number")
    return given


def _check_names(names: Sequence[str]) -> None:
    missing = [one for one in ("id", "set") if one not in names]
    if not missing and not {"score", "feature"} & set(names):
        missing = ["score or feature"]
    if missing:
        shown = ", ".join(map(short_line, names[:10])) or "nothing"
        raise ImportProblem(f"no column {' and no column '.join(missing)}; it has {shown}")


def _from_csv(path: Path) -> Given:
    table = read_csv(path)
    places = [f"line {line}" for line in table.lines]
    numbered = {int(m[1]): name for name in table.header if (m := _NUMBERED.fullmatch(name))}
    _check_names([*table.header, *(["feature"] if numbered else [])])
    features = None
    if "feature" in table.header:
        features = _stacked(
            [_json_list(*both) for both in zip(table.column("feature"), places, strict=True)], places
        )
    elif numbered:
        columns = [_numbers(table.column(name), places, "feature") for _, name in sorted(numbered.items())]
        features = np.stack(columns, 1).astype(np.float32)
    scores = _numbers(table.column("score"), places, "score") if "score" in table.header else None
    return Given(text_array(table.column("id")), text_array(table.column("set")), scores, features, places)


def _from_parquet(path: Path) -> Given:
    names = pq.read_schema(path).names
    _check_names(names)
    columns = [one for one in ("id", "set", "score", "feature") if one in names]
    table = pq.read_table(path, columns=columns).combine_chunks()
    places = [f"row {row}" for row in range(1, table.num_rows + 1)]
    ids, sets = (_texts(table[name].to_pylist(), places, name) for name in ("id", "set"))
    scores = _numbers(table["score"].to_pylist(), places, "score") if "score" in names else None
    features = _list_column(table["feature"], places) if "feature" in names else None
    return Given(ids, sets, scores, features, places)


def _from_npz(path: Path) -> Given:
    # never a pickle, which could run any code
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise ImportProblem("is not an npz file")
    with opened as file:
        _check_names(file.files)
        arrays: Mapping[str, np.ndarray] = {
            name: file[name] for name in ("id", "set", "score", "feature") if name in file.files
        }
    n = len(np.atleast_1d(arrays["id"]))
    for name, array in arrays.items():
        wanted = 2 if name == "feature" else 1
        kinds = "UST" if name in ("id", "set") else "iuf"
        if array.ndim != wanted or len(array) != n or array.dtype.kind not in kinds:
            shape = f"({n}{',D' if wanted == 2 else ','})"
            what = "texts" if name in ("id", "set") else "numbers"
            raise ImportProblem(f"{name} must be {what} {shape}, not {array.dtype} {array.shape}")
    places = [f"row {row}" for row in range(1, n + 1)]
    scores, features = arrays.get("score"), arrays.get("feature")
    return Given(
        arrays["id"].astype(str),
        arrays["set"].astype(str),
        None if scores is None else scores.astype(np.float64),
        None if features is None else features.astype(np.float32),
        places,
    )


def _texts(values: list[Any], places: Sequence[str], name: str) -> np.ndarray:
    for place, value in zip(places, values, strict=True):
        if not isinstance(value, str):
            raise ImportProblem(f"{place}: the {name} {_shown(value)} is not a text")
    return text_array(values)


def _numbers(values: Sequence[Any], places: Sequence[str], name: str) -> np.ndarray:
    """Numbers, float64 (N,); NaN for an empty cell."""
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value in (None, ""):
            continue
        try:
            found[row] = float("no number") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError) as error:
            raise ImportProblem(f"{places[row]}: the {name} {_shown(value)} is not a number") from error
        if np.isnan(found[row]):
            raise ImportProblem(f"{places[row]}: the {name} is NaN")
    return found


def _json_list(cell: str, place: str) -> np.ndarray:
    try:
        found = np.array(json.loads(cell), np.float32)
    except (ValueError, TypeError, RecursionError):
        found = np.empty((), np.float32)
    if found.ndim != 1:
        raise ImportProblem(f"{place}: the feature {_shown(cell[:60])} is not a JSON list of numbers")
    return found


def _stacked(rows: list[np.ndarray], places: Sequence[str]) -> np.ndarray:
    for place, row in zip(places, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ImportProblem(f"{place}: {len(row)} numbers in the feature, {len(rows[0])} in the first one")
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _list_column(column: pa.ChunkedArray, places: Sequence[str]) -> np.ndarray:
    """Features (N,D) of a column of lists of numbers."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise ImportProblem(f"feature must be a column of lists of numbers, not {short_line(str(kind))}")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    for row in np.flatnonzero(lengths != (lengths[0] if len(lengths) else 0))[:1]:
        raise ImportProblem(
            f"{places[row]}: {lengths[row]} numbers in the feature, {lengths[0]} in the first one"
        )
    values = pc.list_flatten(column).cast(pa.float32()).to_numpy()
    return values.reshape(len(lengths), -1 if len(values) else 0)
