from __future__ import annotations

import io

import numpy as np
import pandas as pd

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.parts import Bars, Heat, Line, Mark

LINES = {"bundle": "shapes", "bundle hash": "a" * 64}
CHART = Chart(
    "AUROC along k",
    "k",
    "AUROC, %",
    [
        Line("near", np.array([1, 2, 5]), np.array([90.5, 91.25, 0.1]), "#D55E00", steps=True, fill=True),
        Bars("far", ["a", "b"], np.array([1.0, 2.0]), "#E69F00"),
    ],
    [Mark(2.0, "t"), Mark(50.0, upright=False)],
)


def test_csv_has_every_number_and_where_it_comes_from() -> None:
    text = CHART.csv(LINES)
    assert "# bundle: shapes\n" in text and f"# bundle hash: {'a' * 64}\n" in text
    table = pd.read_csv(io.StringIO(text), comment="#")
    assert table.columns.tolist() == ["series", "k", "AUROC, %"]
    assert table["AUROC, %"].tolist() == [90.5, 91.25, 0.1, 1.0, 2.0]
    assert table["series"].tolist() == ["near"] * 3 + ["far"] * 2


def test_csv_of_a_heat_map_leaves_what_was_not_measured_empty() -> None:
    chart = Chart(
        "Map", "k", "alpha", [Heat("AUROC", ["1", "2"], ["0", "1"], np.array([[1.5, np.nan], [3.0, 4.0]]))]
    )
    table = pd.read_csv(io.StringIO(chart.csv(LINES)), comment="#")
    assert table["value"].isna().tolist() == [False, True, False, False]
    assert table.iloc[2].tolist() == [1, 1, 3.0]
