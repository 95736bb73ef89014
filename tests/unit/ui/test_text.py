from __future__ import annotations

import pytest

from sdviz.ui.text import code_span, minute, plain, short_of_all


@pytest.mark.parametrize(
    ("share", "said"),
    [(100.0, "100.0 %"), (99.95, "99.95 %"), (99.9999, "99.99 %"), (99.9, "99.9 %"),
     (0.0, "0.0 %"), (0.025, "0.02 %"), (0.001, "0.01 %"), (50.04, "50.0 %")],
)  # fmt: skip
def test_a_share_is_all_or_none_only_where_it_is(share: float, said: str) -> None:
    assert short_of_all(share) == said


def test_a_code_span_is_one_line_that_nothing_in_it_can_end() -> None:
    assert code_span("a`b\nc") == "`a'b c`"
    assert code_span("abcdef", 3) == "`abc`"


def test_plain_text_is_no_markdown() -> None:
    assert plain("*a* [b](c)") == r"\*a\* \[b\](c)"
    assert plain("crescent 2") == "crescent 2"


def test_a_time_to_the_minute() -> None:
    assert minute("2026-01-31T12:05:59.123+00:00") == "2026-01-31 12:05"
