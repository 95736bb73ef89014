from __future__ import annotations

import numpy as np
import pytest

from sdviz.ui.embeddings.colours import WAYS, colour_points
from sdviz.ui.embeddings.state import Known


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_colouring_puts_each_point_in_one_group(way: str, known: Known) -> None:
    shown = colour_points(known, way)
    assert shown.rgb.shape == (160, 3) and shown.group.shape == (160,)
    got = np.bincount(shown.group, minlength=len(shown.groups))
    assert got.tolist() == [one.count for one in shown.groups]
    if shown.ramp is None:
        for row, group in enumerate(shown.groups):
            colours = {"#" + bytes(c.tolist()).hex().upper() for c in shown.rgb[shown.group == row]}
            assert colours == {group.colour.upper()}
