from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from sdviz.ui.charts.show import file_name


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("ROC, distance + α · votes", "sdviz-roc-distance-alpha-x-votes"),
        ("t-SNE of the features, coloured by set", "sdviz-t-sne-of-the-features-coloured-by-set"),
        ("Müller/../x", "sdviz-m-ller-x"),
    ],
)
def test_file_names_are_plain(title: str, name: str) -> None:
    assert file_name(title) == name


def every_kind() -> None:
    import numpy as np

    from sdviz.ui.charts import Chart, show_chart
    from sdviz.ui.charts.parts import Bars, Dots, Heat, Line

    x = np.arange(3)
    parts = {
        "bars": Bars("b", ["a", "b", "c"], x, "#111111"),
        "points": Dots("p", x, x, "#111111"),
        "lines": Line("l", x, x, "#111111"),
        "heat": Heat("h", ["a"], ["b"], np.zeros((1, 1))),
    }
    for name, part in parts.items():
        show_chart(Chart(name, "x", "y", [part]), {"bundle": "b"}, key=name, caption=f"of {name}")


def test_vega_lite_draws_bars_and_points_and_plotly_lines_and_heat_maps() -> None:
    at = AppTest.from_function(every_kind, default_timeout=60).run()
    assert not at.exception
    assert (len(at.get("vega_lite_chart")), len(at.get("plotly_chart"))) == (2, 2)
    assert [one.value for one in at.caption] == ["of bars", "of points", "of lines", "of heat"]
    assert [one.proto.label for one in at.get("download_button")] == ["PNG", "SVG", "CSV"] * 4
