"""What the grid of pictures sends to the browser."""

from __future__ import annotations

from typing import Any

from sdviz.ui.components import picture_grid


def test_a_grid_sends_its_cells_row_by_row(sent: dict[str, Any]) -> None:
    cells = [picture_grid.Cell("data:a", "a", "#111111", id="1"), picture_grid.Cell("", "", "#222222")]
    names = [picture_grid.Label("original", "in-distribution")]
    assert picture_grid.picture_grid(cells, 2, key="grid", row_names=names) is None
    data = sent["data"]
    assert [cell["src"] for cell in data["cells"]] == ["data:a", ""] and data["columns"] == 2
    assert data["row_names"] == [{"text": "original", "small": "in-distribution"}]
    assert data["column_names"] == [] and sent["key"] == "grid"
