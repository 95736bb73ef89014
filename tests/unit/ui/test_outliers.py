from __future__ import annotations

import pytest

from sdviz.ui.outliers import s_values


@pytest.mark.parametrize(("max_s", "count"), [(200, 9), (300, 13), (1000, 6), (20, 9), (3, 13)])
def test_values_of_s_rise_from_0_to_the_largest(max_s: int, count: int) -> None:
    values = s_values(max_s, count)
    assert values[0] == 0
    assert values[-1] == max_s
    assert values == sorted(set(values))
    assert len(values) <= count


def test_values_of_s_are_multiples_of_5_where_there_is_room() -> None:
    assert all(s % 5 == 0 for s in s_values(200, 9))
    assert any(s % 5 for s in s_values(20, 9))
