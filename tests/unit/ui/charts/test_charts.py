from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from plotly.colors import sample_colorscale

from sdviz.ui.charts import Chart, file_name, ink_on
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


def test_png_carries_its_provenance_and_is_not_empty() -> None:
    with Image.open(io.BytesIO(CHART.picture("png", LINES))) as picture:
        assert "shapes" in picture.text["Description"] and "aaaaaaaaaaaa" in picture.text["Description"]
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 1000 and (pixels == (213, 94, 0)).all(-1).sum() > 100


def test_svg_is_xml_with_its_provenance() -> None:
    blob = CHART.picture("svg", LINES)
    assert ET.fromstring(blob).tag.endswith("svg") and b"shapes" in blob


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_heat_map_without_one_number_can_be_saved(kind: str) -> None:
    chart = Chart("Map", "k", "alpha", [Heat("AUROC", ["1"], ["0"], np.array([[np.nan]]))])
    assert chart.picture(kind, LINES)


def test_names_on_a_heat_map_are_no_html() -> None:
    chart = Chart("C", "class", "cluster", [Heat("n", ["<b>a</b> & b"], ["<i>c</i>"], np.array([[1.0]]))])
    (drawn,) = chart.figure().data
    assert (drawn.x, drawn.y) == (("&lt;b&gt;a&lt;/b&gt; &amp; b",), ("&lt;i&gt;c&lt;/i&gt;",))
    assert "<b>a</b> & b" in chart.csv(LINES)


ODD = "Kreuz <b>bold</b> **md** $x$"


def test_a_name_is_literal_for_plotly() -> None:
    chart = Chart("t", "x", "y", [Line(ODD, np.arange(3), np.arange(3), "#000000")] * 2)
    figure = chart.figure()
    assert figure.data[0].name == "Kreuz &lt;b&gt;bold&lt;/b&gt; **md** $x$"


@pytest.mark.parametrize(
    "part", [Line(ODD, np.arange(2), np.arange(2), "#000000"), Bars(ODD, [ODD, "b"], np.arange(2), "#000000")]
)
def test_a_name_is_no_formula_in_files(part: Line | Bars) -> None:
    svg = Chart(f"of {ODD}", "x", "y", [part, part]).picture("svg", LINES | {"told": ODD}).decode()
    # matplotlib writes each text as a comment beside its outlines
    comments = re.findall(r"<!-- (.*?) -->", svg)
    assert sum("$x$" in one for one in comments) >= 3


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


def test_differences_are_pale_at_0_and_the_first_row_can_be_the_top_one() -> None:
    z = np.array([[-1.0, 4.0], [0.5, np.nan]])
    figure = Chart("t", "", "", [Heat("points", ["a", "b"], ["c", "d"], z, "+.2f", True, True)]).figure()
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-4, 4)
    assert figure.layout.yaxis.autorange == "reversed"
    plain = Chart("t", "", "", [Heat("points", ["a", "b"], ["c", "d"], z)]).figure()
    assert plain.data[0].zmin is None and plain.layout.yaxis.autorange is None
    nothing = Heat("points", ["a"], ["c"], np.array([[np.nan]]), signed=True)
    assert nothing.limit == 1 and Chart("t", "", "", [nothing]).picture("svg", {})


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
    figure = Chart("t", "", "", [Heat("n", names, ["0"], z, ".2f", signed)]).figure()
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
    for shape in chart.figure().layout.shapes:
        assert (shape.x0, shape.x1, shape.y0, shape.y1) == (-0.5, 0.5, 0.5, 1.5)
    assert chart.picture("svg", LINES)


def test_a_legend_in_a_file_lies_below_the_axes() -> None:
    names = [f"line {i}" for i in range(9)]
    x = np.arange(3)
    parts = [Line(name, x, x, "#000000", dash="dashdot") for name in names]
    tree = ET.fromstring(Chart("t", "x", "y", parts).picture("svg", LINES))
    height = float(tree.attrib["height"].removesuffix("pt"))
    alone = ET.fromstring(Chart("t", "x", "y", parts[:1]).picture("svg", LINES))
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
    assert chart.figure().layout.xaxis.type == "log"
    assert "0.01" in chart.csv(LINES)
    comments = re.findall(r"<!-- (.*?) -->", chart.picture("svg", LINES).decode())
    assert {"0.01", "0.02", "0.05", "0.1"} < set(comments) and not any("mathdefault" in one for one in comments)
