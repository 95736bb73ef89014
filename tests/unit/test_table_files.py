from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdviz.table_files import TableError, as_written, csv_text, harmless, read_csv, text_array, write_parquet

# what spreadsheets run, and what ends a cell, a line or a quoted text
NASTY = [*"=+-@＝＋－＠﹢﹣⁺₌", "\t", "\r", "\n", "\r\n", "'", "''", '"', '""', ",", ";", "#", "# ", " "]
NASTY += ["\u00a0", "\ufeff", "\u200b", "\x00", "cmd|' /C calc'!A0", "SUM(1)", "1", "-1.5", "1e5", "true"]
NASTY += ["nan", "[]", "Zoë", "日本", "😀", "é", "\u202e", "\\", "\u2028"]


def nasty_text(rng: np.random.Generator) -> str:
    return "".join(rng.choice(NASTY, size=rng.integers(0, 6)).tolist())


def nasty_value(rng: np.random.Generator) -> object:
    kinds = rng.integers(0, 8)
    if kinds < 4:
        return nasty_text(rng)
    if kinds == 4:
        return float(rng.choice([0.1, -1e-300, 1e300, math.inf, -math.inf, -0.0, rng.normal()]))
    if kinds == 5:
        return int(rng.integers(-(2**62), 2**62))
    if kinds == 6:
        return [nasty_text(rng) for _ in range(rng.integers(0, 4))]
    return None


def as_read(value: object, cell: str) -> object:
    """The value of a cell, read as the kind that was written."""
    if value is None:
        return cell or None
    if isinstance(value, list):
        return json.loads(cell)
    return type(value)(cell)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_written_is_read_again(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.integers(1, 5))
    header = [f"{nasty_text(rng)}{i}" for i in range(width)]
    rows = [[nasty_value(rng) for _ in header] for _ in range(rng.integers(0, 30))]
    rows = [row for row in rows if row != [None]]  # an empty line is no row
    lines = {nasty_text(rng): nasty_text(rng) for _ in range(rng.integers(0, 4))}
    text = csv_text(header, rows, lines, nasty_text(rng).strip())
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert text.encode().startswith(b"\xef\xbb\xbf")
    table = read_csv(tmp_path / "a.csv")
    assert table.header == header
    again = [[as_read(v, c) for v, c in zip(*pair, strict=True)] for pair in zip(rows, table.rows, strict=True)]
    assert again == rows


@pytest.mark.parametrize("seed", range(40))
def test_no_cell_begins_as_a_formula_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [[nasty_text(rng), nasty_text(rng)] for _ in range(50)]
    lines = {f"a{nasty_text(rng)}": nasty_text(rng) for _ in range(20)}
    text = csv_text([nasty_text(rng), nasty_text(rng)], rows, lines, nasty_text(rng)).removeprefix("\ufeff")
    for row in csv.reader(io.StringIO(text, newline="")):
        for cell in row:
            assert cell.strip()[:1] not in ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001
            assert cell[:1] not in ("\t", "\r", "\n")


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "＝1", "＋1", "－1", "＠x", " =1", "\ufeff=1", "'=1", "''=1"],  # noqa: RUF001
)
def test_a_formula_gets_one_apostrophe(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert as_written(harmless(text)) == text


@pytest.mark.parametrize("text", ["", "a=1", "'quoted'", "'", "1-2", "#x", "[1]", "it's"])
def test_other_text_stays(text: str) -> None:
    assert harmless(text) == as_written(text) == text


def test_numbers_stay_numbers_and_lists_are_json() -> None:
    numbers = -1.5, np.float32(0.5), np.int64(-3), True, np.bool_(False), None, math.nan
    line = csv_text([*"abcdefghi"], [[*numbers, ["a b", 'c"'], np.arange(2)]]).splitlines()[1]
    assert line == '-1.5,0.5,-3,true,false,,,"[""a b"", ""c\\""""]","[0, 1]"'


def test_it_opens_in_pandas_below_its_provenance() -> None:
    rows = [["# no comment", 0.5], ['a "quote", a comma', None]]
    text = csv_text(["text", "value"], rows, {"bundle": "b", "lines": "two\nof them, =1"}, "A title")
    assert text.splitlines()[:3] == ["\ufeff# A title", "# bundle: b", "# lines: two of them, '=1"]
    table = pd.read_csv(io.StringIO(text), comment="#")
    assert table["text"].tolist() == [row[0] for row in rows]
    assert table["value"][0] == 0.5 and pd.isna(table["value"][1])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_as_spreadsheets_save_them(tmp_path: Path, delimiter: str) -> None:
    text = "\r\n".join(delimiter.join(row) for row in (["id", '"a,b;c"'], ["'=x", "1"], ["y", ""])) + "\r\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    table = read_csv(tmp_path / "a.csv")
    assert table.header == ["id", "a,b;c"]
    assert (table.column("id"), table.lines) == (["=x", "y"], [2, 3])
    assert table.records()[0] == {"id": "=x", "a,b;c": "1"}
    with pytest.raises(ValueError, match="no column nothing; it has id"):
        table.column("nothing")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "it has no header"),
        (b"\xef\xbb\xbf# only a line\n", "it has no header"),
        (b'a,b\n1,2\n"1",2,3\n', "line 3: 3 cells under 2 names"),
        (b"a,b\n\n1\n", "line 3: 1 cells"),
        (b'# x\na,b\n"1"2,3\n', "line 3: "),
        (b"a\n\xff\n", "can't decode"),
        (b'"' * 99_999, "line 1: "),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_csv(tmp_path / "a.csv")


def test_parquet_keeps_lists(tmp_path: Path) -> None:
    table = pa.table({"nearest_ids": pa.array([["holiday 0 (1).jpg", "b"], []], pa.list_(pa.string()))})
    write_parquet(table, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(table)
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_bytes_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_text(["a"], [["caf\udce9"], [["\udcff"]]], title="\udce9").encode())
    assert read_csv(tmp_path / "a.csv").column("a") == ["caf%E9", '["%FF"]']


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a,b\n\xff,1\n", "not UTF-8"),
        (b"", "it has no header"),
        (b"a,b\n1\n", "line 2: 1 cells under 2 names"),
        (b'a,b\n1,"2\n', "line 2: unexpected end of data"),
        (b"a," + b"b" * 5_000 + b"\n1\n", "line 2: 1 cells under 2 names"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(raw)
    with pytest.raises(TableError, match=message) as error:
        read_csv(tmp_path / "a.csv")
    assert str(error.value).isprintable() and len(str(error.value)) <= 300


def test_a_column_that_is_not_there_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    table = read_csv(tmp_path / "a.csv")
    assert table.column("b") == ["2"]
    for name, message in (("a", "more than one column a; it has a, b, a"), ("c", "no column c")):
        with pytest.raises(TableError, match=message):
            table.column(name)
    with pytest.raises(TableError, match="more than one column a"):
        table.records()


def test_texts_that_numpy_would_cut_are_refused() -> None:
    assert text_array(["a\0b", "", "é"]).tolist() == ["a\0b", "", "é"]
    with pytest.raises(ValueError, match="the text 'a' in row 2 ends in a NUL"):
        text_array(["b", "a\0"])
