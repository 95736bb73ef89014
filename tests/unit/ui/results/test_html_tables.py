from __future__ import annotations

import pytest

from sdviz.ui.results.html_tables import Row, TableCell, between, points, shares, table_html


def test_shares_become_percent_and_none_stays() -> None:
    assert shares(0.5, None, 1.0) == [50.0, None, 100.0]


@pytest.mark.parametrize(
    ("value", "sign", "expected"),
    [(0.98765, False, "98.77"), (0.012, True, "+1.20"), (-0.01, True, "-1.00"), (None, True, "")],
)
def test_a_share_as_a_number_of_percent(value: float | None, sign: bool, expected: str) -> None:
    assert points(value, sign) == expected


def test_an_interval_of_shares() -> None:
    assert between((0.971, 0.982)) == "97.10 to 98.20"
    assert between(None) == ""


def test_text_in_a_cell_is_no_html() -> None:
    table = table_html(["<a>"], [Row(["<b>"]), Row([TableCell("c", "<d>")])])
    assert "<a>" not in table
    assert "<b>" not in table
    assert "<d>" not in table
