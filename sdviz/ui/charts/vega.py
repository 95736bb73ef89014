"""Draws bars and points on the page with Vega-Lite."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from sdviz.ui.assets import style
from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.parts import Bars, Dots
from sdviz.ui.theme import mark_colour

_STAR = "M0,-1L.23,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.23,-.31Z"
# where a logarithmic axis begins: below 1, so that a bar of one image is visible
_LOG_FLOOR = 0.5
# more letters than this below an axis do not fit on half a page: names are turned, or every other step has none
_LETTERS_IN_A_ROW = 45


def vega_lite(chart: Chart) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Returns bars or points as a table (series, x, y, text, colour), and the Vega-Lite specification."""
    parts = _parts(chart)
    table = pd.concat([_rows(part) for part in parts], ignore_index=True)
    if chart.log_y:
        table = table[table["y"] > 0]
    layers = [_bars(part, chart) if isinstance(part, Bars) else _points(part, chart) for part in parts]
    for part, layer in zip(parts, layers, strict=True):
        layer["transform"] = [{"filter": {"field": "series", "equal": part.name}}]
        layer["encoding"]["color"] = _colour(parts)
    if isinstance(parts[0], Dots):
        layers[0]["params"] = [{"name": "view", "select": "interval", "bind": "scales"}]
    return table, {"height": chart.height, "layer": layers}


def legend(chart: Chart) -> str:
    """Returns the names of the parts with their colours as HTML that wraps; "" for a single part."""
    parts = _parts(chart)
    if len(parts) < 2:
        return ""
    names = [f"<span>{_sign(part)}{escape(part.name)}</span>" for part in parts]
    return f'{style(__name__)}<div class="chartlegend">{"".join(names)}</div>'


def _parts(chart: Chart) -> list[Bars | Dots]:
    return [part for part in chart.parts if isinstance(part, Bars | Dots)]


def _sign(part: Bars | Dots) -> str:
    """Returns a part's sign in the legend: a star for a star, else a disc."""
    is_star = isinstance(part, Dots) and part.symbol == "star"
    return f'<font color="{part.colour}">{"<b>★</b>" if is_star else "<i></i>"}</font>'


def _rows(part: Bars | Dots) -> pd.DataFrame:
    colours = part.colour if isinstance(part.colour, str) else list(part.colour)
    texts = list(getattr(part, "texts", ())) or ""
    return pd.DataFrame(
        {"series": part.name, "x": list(part.x), "y": np.asarray(part.y), "text": texts, "colour": colours}
    )


def _colour(parts: Sequence[Bars | Dots]) -> dict[str, Any]:
    if len(parts) == 1:
        return {"field": "colour", "type": "nominal", "scale": None}
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": [one.name for one in parts], "range": [one.colour for one in parts]},
        "legend": None,  # Vega-Lite's own is cut off on a narrow page: see `legend`
    }


def _bars(part: Bars, chart: Chart) -> dict[str, Any]:
    names = [str(one) for one in part.x]
    fits = sum(map(len, names)) <= _LETTERS_IN_A_ROW
    turned = not fits and not part.in_steps
    overlap = "greedy" if part.in_steps else False
    encoding: dict[str, Any] = {
        "x": {
            "field": "x",
            "type": "nominal",
            "sort": None,
            "scale": {"domain": names},
            "title": chart.x_title,
            "axis": {
                "labelAngle": -40 if turned else 0,
                "labelLimit": 150,
                "labelOverlap": overlap,
            },
        },
        "y": _axis("y", chart.y_title, chart.y_range, chart.log_y, True),
        "tooltip": [
            {"field": "x", "type": "nominal", "title": chart.x_title or "x"},
            {"field": "y", "type": "quantitative", "title": chart.y_title or part.name},
        ],
    }
    if part.in_steps and not fits:
        encoding["x"]["axis"]["values"] = names[::-1][::2]  # the last one stays
    if chart.log_y:
        encoding["y2"] = {"datum": _LOG_FLOOR}
    if len(chart.parts) > 1:
        encoding["xOffset"] = {"field": "series", "sort": None}
    if part.lying:
        encoding["x"]["axis"] = {"labelAngle": 0, "labelLimit": 0, "labelOverlap": False}
        encoding["x"]["title"] = None  # it would lie over the names
        encoding["x"], encoding["y"] = encoding["y"], encoding["x"]
    return {"mark": {"type": "bar"}, "encoding": encoding}


def _points(part: Dots, chart: Chart) -> dict[str, Any]:
    mark: dict[str, Any] = {
        "type": "point",
        "filled": True,
        "shape": _STAR if part.symbol == "star" else "circle",
        "size": part.size_px**2,
        "opacity": 1.0 if part.ringed else 0.65,
    }
    if part.ringed:
        mark |= {"stroke": mark_colour(), "strokeWidth": 1.5}
    encoding = {
        "x": _axis("x", chart.x_title, None, False, False),
        "y": _axis("y", chart.y_title, None, False, False),
        "tooltip": [
            {"field": "text", "type": "nominal", "title": "id"},
            {"field": "series", "type": "nominal", "title": "group"},
        ],
    }
    return {"mark": mark, "encoding": encoding}


def _axis(field: str, title: str, ends: tuple[float, float] | None, log: bool, zero: bool) -> dict[str, Any]:
    scale: dict[str, Any] = {"zero": zero}
    if log:
        scale = {"type": "log", "domainMin": _LOG_FLOOR}
    if ends is not None:
        scale["domain"] = list(ends)
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}
