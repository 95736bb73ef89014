from __future__ import annotations

from sdviz.evaluation.writing import markdown_table, spread_text


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert markdown_table(["a", "b|c"], [["1", "x|y"]]) == "| a | b\\|c |\n| --- | --- |\n| 1 | x\\|y |"


def test_spread_is_over_runs() -> None:
    assert spread_text([], 2) == "" and spread_text([1.0], 2) == "1.00" and spread_text([1.0], 1, "+") == "+1.0"
    assert spread_text([1.0, 3.0], 1) == "2.0 ± 1.4"
