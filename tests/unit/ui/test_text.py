from __future__ import annotations

import pytest

from sdviz.ui.text import short_of_all


@pytest.mark.parametrize(
    ("share", "said"),
    [(100.0, "100.0 %"), (99.95, "99.95 %"), (99.9999, "99.99 %"), (99.9, "99.9 %"),
     (0.0, "0.0 %"), (0.025, "0.02 %"), (0.001, "0.01 %"), (50.04, "50.0 %")],
)  # fmt: skip
def test_a_share_is_all_or_none_only_where_it_is(share: float, said: str) -> None:
    assert short_of_all(share) == said
