from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.files import chart_file
from sdviz.ui.charts.parts import Bars, Dots
from sdviz.ui.charts.vega import legend, vega_lite


def chart(*parts: Any, **more: Any) -> Chart:  # noqa: ANN401
    return Chart("title", "across", "up", parts, **more)


def test_bars_keep_order_colours_and_empty_names() -> None:
    names = ["b", "a", "c"]
    table, spec = vega_lite(
        chart(Bars("images", names, np.array([3, 0, 5]), ["#111111", "#222222", "#333333"]))
    )
    assert table["x"].tolist() == names and table["y"].tolist() == [3, 0, 5]
    assert table["colour"].tolist() == ["#111111", "#222222", "#333333"]
    (layer,) = spec["layer"]
    assert layer["encoding"]["x"]["scale"]["domain"] == names
    assert layer["encoding"]["x"]["sort"] is None and layer["encoding"]["y"]["scale"]["zero"]
    assert layer["encoding"]["color"] == {"field": "colour", "type": "nominal", "scale": None}


def test_a_logarithmic_axis_has_no_bar_of_nothing_but_keeps_its_place() -> None:
    table, spec = vega_lite(chart(Bars("images", ["a", "b"], np.array([0, 9]), "#111111"), log_y=True))
    assert table["x"].tolist() == ["b"]
    encoding = spec["layer"][0]["encoding"]
    assert encoding["x"]["scale"]["domain"] == ["a", "b"]
    assert encoding["y"]["scale"]["type"] == "log" and 0 < encoding["y2"]["datum"] < 1


def test_series_stand_side_by_side_under_one_legend() -> None:
    names = ["a", "b"]
    table, spec = vega_lite(
        chart(
            Bars("g_in", names, np.array([1.0, 2.0]), "#0072B2"),
            Bars("g_out", names, np.array([3.0, 4.0]), "#009E73"),
            y_range=(0, 105),
        )
    )
    assert table["series"].tolist() == ["g_in", "g_in", "g_out", "g_out"]
    for layer, name in zip(spec["layer"], ("g_in", "g_out"), strict=True):
        assert layer["transform"] == [{"filter": {"field": "series", "equal": name}}]
        assert layer["encoding"]["color"]["scale"] == {
            "domain": ["g_in", "g_out"],
            "range": ["#0072B2", "#009E73"],
        }
        assert layer["encoding"]["xOffset"]["field"] == "series"
        assert layer["encoding"]["y"]["scale"]["domain"] == [0, 105]


def test_the_legend_names_several_parts_and_takes_no_html() -> None:
    one = Dots("<b>all</b>", np.zeros(1), np.zeros(1), "#0072B2")
    assert legend(chart(one)) == ""
    shown_texts = legend(chart(one, Dots("this", np.zeros(1), np.zeros(1), "#000000")))
    assert "&lt;b&gt;all&lt;/b&gt;" in shown_texts and "#0072B2" in shown_texts and "this" in shown_texts


def test_points_can_be_moved() -> None:
    x = np.array([0.5, -0.5])
    table, spec = vega_lite(
        chart(
            Dots("all", x, 2 * x, "#0072B2", 5, texts=["one", "two"]),
            Dots("this", x[:1], x[:1], "#000000", 15, True, "star", texts=["three"]),
        )
    )
    assert table["text"].tolist() == ["one", "two", "three"] and table["y"].tolist() == [1.0, -1.0, 0.5]
    first, second = spec["layer"]
    assert first["params"][0]["bind"] == "scales" and "params" not in second
    assert first["mark"]["size"] == 25 and second["mark"]["shape"].startswith("M")
    assert not first["encoding"]["x"]["scale"]["zero"]


@pytest.mark.parametrize("log_y", [False, True])
def test_nothing_to_draw_is_an_empty_chart(log_y: bool) -> None:
    table, spec = vega_lite(chart(Bars("images", [], np.array([]), "#111111"), log_y=log_y))
    assert table.empty and spec["layer"]


def test_steps_of_a_scale_leave_names_out_where_there_is_no_room() -> None:
    names = [f"{i}-{i + 5}" for i in range(0, 100, 5)]
    for in_steps, angle, overlap in ((True, 0, "greedy"), (False, -40, False)):
        _, spec = vega_lite(chart(Bars("images", names, np.arange(20), "#111111", in_steps)))
        axis = spec["layer"][0]["encoding"]["x"]["axis"]
        assert (axis["labelAngle"], axis["labelOverlap"]) == (angle, overlap)
        assert set(axis.get("values", names)) == set(names[1::2] if in_steps else names)


def test_lying_bars_have_their_whole_names_next_to_them() -> None:
    names = [f"a name of many words, the {i}th" for i in range(30)]
    one = chart(Bars("images", names, np.arange(30), "#111111", lying=True))
    _, spec = vega_lite(one)
    encoding = spec["layer"][0]["encoding"]
    assert encoding["y"]["field"] == "x" and encoding["y"]["scale"]["domain"] == names
    assert encoding["y"]["axis"] == {"labelAngle": 0, "labelLimit": 0, "labelOverlap": False}
    assert (encoding["x"]["title"], encoding["y"]["title"]) == ("up", None)
    svg = chart_file(one, "svg", {}).decode()
    assert all(f"<!-- {name} -->" in svg for name in names)


def test_a_star_is_a_star_in_the_legend() -> None:
    x = np.zeros(1)
    shown_texts = legend(chart(Dots("all", x, x, "#0072B2"), Dots("this", x, x, "#111111", symbol="star")))
    assert shown_texts.count("★") == 1 and shown_texts.index("★") > shown_texts.index("all")
