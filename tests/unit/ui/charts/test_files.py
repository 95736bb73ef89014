from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.files import chart_file
from sdviz.ui.charts.parts import Bars, Heat, Line, Mark
from sdviz.ui.charts.plotly_figure import plotly_figure

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
ODD = "Kreuz <b>bold</b> **md** $x$"


def test_png_carries_its_provenance_and_is_not_empty() -> None:
    with Image.open(io.BytesIO(chart_file(CHART, "png", LINES))) as picture:
        assert "shapes" in picture.text["Description"] and "aaaaaaaaaaaa" in picture.text["Description"]
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000 and (pixels == (213, 94, 0)).all(-1).sum() > 100


def test_svg_is_xml_with_its_provenance() -> None:
    blob = chart_file(CHART, "svg", LINES)
    assert ET.fromstring(blob).tag.endswith("svg") and b"shapes" in blob


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_heat_map_without_one_number_can_be_saved(kind: str) -> None:
    chart = Chart("Map", "k", "alpha", [Heat("AUROC", ["1"], ["0"], np.array([[np.nan]]))])
    assert chart_file(chart, kind, LINES)


@pytest.mark.parametrize(
    "part", [Line(ODD, np.arange(2), np.arange(2), "#000000"), Bars(ODD, [ODD, "b"], np.arange(2), "#000000")]
)
def test_a_name_is_no_formula_in_files(part: Line | Bars) -> None:
    svg = chart_file(Chart(f"of {ODD}", "x", "y", [part, part]), "svg", LINES | {"told": ODD}).decode()
    # matplotlib writes each text as a comment beside its outlines
    comments = re.findall(r"<!-- (.*?) -->", svg)
    assert sum("$x$" in one for one in comments) >= 3


def test_a_legend_in_a_file_lies_below_the_axes() -> None:
    names = [f"line {i}" for i in range(9)]
    x = np.arange(3)
    parts = [Line(name, x, x, "#000000", dash="dashdot") for name in names]
    tree = ET.fromstring(chart_file(Chart("t", "x", "y", parts), "svg", LINES))
    height = float(tree.attrib["height"].removesuffix("pt"))
    alone = ET.fromstring(chart_file(Chart("t", "x", "y", parts[:1]), "svg", LINES))
    assert height - float(alone.attrib["height"].removesuffix("pt")) == pytest.approx(72 * 0.19 * 5, abs=1)

    def lowest(group: ET.Element) -> float:
        places = [float(n) for one in group.iter() for n in re.findall(r"[ML] \S+ (\S+)", one.get("d", ""))]
        return max(places)

    groups = {one.get("id"): one for one in tree.iter("{http://www.w3.org/2000/svg}g")}
    legend = groups["legend_1"]
    lines = [one for one in legend.iter() if one.get("id", "").startswith("line2d")]
    assert len(lines) == 9
    assert min(lowest(one) for one in lines) > lowest(groups["patch_2"])


def test_a_logarithmic_axis_says_the_numbers_themselves() -> None:
    chart = Chart(
        "t", "score", "y", [Line("a", np.array([0.01, 1.0]), np.array([1, 2]), "#000000")], log_x=True
    )
    assert plotly_figure(chart).layout.xaxis.type == "log"
    assert "0.01" in chart.csv(LINES)
    comments = re.findall(r"<!-- (.*?) -->", chart_file(chart, "svg", LINES).decode())
    assert {"0.01", "0.02", "0.05", "0.1"} < set(comments) and not any("mathdefault" in one for one in comments)
