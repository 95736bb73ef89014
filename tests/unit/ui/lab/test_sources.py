from __future__ import annotations

import pytest

from sdviz.ui.lab.sources import in_link, picked_ids


@pytest.mark.parametrize("ids", [["shapes/test/00001"], ["a, b.png", "c"], ["50%,", ",%2C", "%"], ["ü d", "+"]])
def test_picked_ids_come_back_whatever_is_in_them(ids: list[str]) -> None:
    assert picked_ids(in_link(ids)) == ids


def test_plain_ids_stay_readable() -> None:
    assert in_link(["shapes/test/00001", "digits/test/2"]) == "shapes/test/00001,digits/test/2"
