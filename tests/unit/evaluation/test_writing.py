from __future__ import annotations

import io

import pandas as pd

from sdviz.evaluation.writing import csv_table, markdown_table, spread_text


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert markdown_table(["a", "b|c"], [["1", "x|y"]]) == "| a | b\\|c |\n| --- | --- |\n| 1 | x\\|y |"


def test_csv_opens_in_pandas_below_its_provenance() -> None:
    rows = [["# no comment", 0.5], ['a "quote", a comma', ""]]
    text = csv_table(
        ["text", "value"], rows, {"bundle": "b", "lines": "two\nof them"}, "A title", quote_texts=True
    )
    assert text.splitlines()[:3] == ["# A title", "# bundle: b", "# lines: two of them"]
    table = pd.read_csv(io.StringIO(text), comment="#")
    assert table["text"].tolist() == [row[0] for row in rows]
    assert table["value"][0] == 0.5 and pd.isna(table["value"][1])
    assert csv_table(["a"], [["b"]], {}) == "a\nb\n"


def test_spread_is_over_runs() -> None:
    assert spread_text([], 2) == "" and spread_text([1.0], 2) == "1.00" and spread_text([1.0], 1, "+") == "+1.0"
    assert spread_text([1.0, 3.0], 1) == "2.0 ± 1.4"
