"""What the grid of pictures sends to the browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdviz.ui.components import picture_grid
from sdviz.ui.pictures import data_uri


def test_a_grid_sends_its_cells_row_by_row(sent: dict[str, Any]) -> None:
    picture = data_uri(np.zeros((32, 32, 3), np.uint8))
    cells = [picture_grid.Cell(picture, "a", "#111111", id="1"), picture_grid.Cell("", "", "#222222")]
    names = [picture_grid.Label("original", "in-distribution")]
    assert picture_grid.picture_grid(cells, 2, key="grid", row_names=names) is None
    data = sent["data"]
    assert [cell["src"] for cell in data["cells"]] == [picture, ""] and data["columns"] == 2
    assert data["row_names"] == [{"text": "original", "small": "in-distribution"}]
    assert data["column_names"] == [] and sent["key"] == "grid"


@pytest.mark.parametrize(
    ("side", "asked", "shown"), [(32, 96, 96), (64, 96, 128), (64, 160, 192), (128, 96, 128), (28, 96, 112)]
)
def test_pictures_are_shown_at_a_multiple_of_their_side(
    sent: dict[str, Any], side: int, asked: int, shown: int
) -> None:
    cell = picture_grid.Cell(data_uri(np.zeros((side, side, 3), np.uint8)), "a", "#111111")
    picture_grid.picture_grid([picture_grid.Cell("", "", "#222222"), cell], 2, key="grid", size_px=asked)
    assert (sent["data"]["size_px"], sent["data"]["side"]) == (shown, side)
