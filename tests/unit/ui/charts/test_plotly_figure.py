from __future__ import annotations

import numpy as np
import pytest
from plotly.colors import sample_colorscale

from sdviz.ui.charts.cell_numbers import ink_on
from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.files import chart_file
from sdviz.ui.charts.parts import Heat, Line
from sdviz.ui.charts.plotly_figure import plotly_figure

LINES = {"bundle": "shapes", "bundle hash": "a" * 64}
ODD = "Kreuz <b>bold</b> **md** $x$"


def test_names_on_a_heat_map_are_no_html() -> None:
    chart = Chart("C", "class", "cluster", [Heat("n", ["<b>a</b> & b"], ["<i>c</i>"], np.array([[1.0]]))])
    (drawn,) = plotly_figure(chart).data
    assert (drawn.x, drawn.y) == (("&lt;b&gt;a&lt;/b&gt; &amp; b",), ("&lt;i&gt;c&lt;/i&gt;",))
    assert "<b>a</b> & b" in chart.csv(LINES)


def test_a_name_is_literal_for_plotly() -> None:
    chart = Chart("t", "x", "y", [Line(ODD, np.arange(3), np.arange(3), "#000000")] * 2)
    figure = plotly_figure(chart)
    assert figure.data[0].name == "Kreuz &lt;b&gt;bold&lt;/b&gt; **md** $x$"


def test_differences_are_pale_at_0_and_the_first_row_can_be_the_top_one() -> None:
    z = np.array([[-1.0, 4.0], [0.5, np.nan]])
    figure = plotly_figure(Chart("t", "", "", [Heat("points", ["a", "b"], ["c", "d"], z, "+.2f", True, True)]))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-4, 4)
    assert figure.layout.yaxis.autorange == "reversed"
    plain = plotly_figure(Chart("t", "", "", [Heat("points", ["a", "b"], ["c", "d"], z)]))
    assert plain.data[0].zmin is None and plain.layout.yaxis.autorange is None
    nothing = Heat("points", ["a"], ["c"], np.array([[np.nan]]), signed=True)
    assert nothing.limit == 1 and chart_file(Chart("t", "", "", [nothing]), "svg", {})


def contrast(a: str, b: str) -> float:
    """By WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("signed", [True, False])
def test_numbers_can_be_read_on_every_colour(signed: bool) -> None:
    z = np.linspace(-1, 1, 21)[None]
    names = [str(i) for i in range(21)]
    figure = plotly_figure(Chart("t", "", "", [Heat("n", names, ["0"], z, ".2f", signed)]))
    notes = figure.layout.annotations
    assert [one.text for one in notes] == [f"{v:.2f}" for v in z[0]]
    assert [(one.x, one.y) for one in notes] == [(i, 0) for i in range(21)]
    for one, at in zip(notes, np.linspace(0, 1, 21), strict=True):
        rgb = sample_colorscale("PuOr_r" if signed else "Viridis", [at], colortype="tuple")[0]
        colour = "#" + "".join(f"{round(255 * v):02X}" for v in rgb)
        assert contrast(one.font.color, colour) >= 4.5, (one.text, colour)
    assert (ink_on((1.0, 1.0, 1.0)), ink_on((0.0, 0.0, 0.0, 1.0))) == ("#000000", "#FFFFFF")


def test_a_framed_cell_is_framed_by_its_place() -> None:
    z = np.array([[1.0, 2.0], [3.0, 4.0]])
    chart = Chart("t", "k", "alpha", [Heat("n", ["1", "2"], ["0", "0.5"], z, framed=(1, 0))])
    shapes = plotly_figure(chart).layout.shapes
    assert len(shapes) == 2
    for shape in shapes:
        assert (shape.x0, shape.x1, shape.y0, shape.y1) == (-0.5, 0.5, 0.5, 1.5)
    assert chart_file(chart, "svg", LINES)
