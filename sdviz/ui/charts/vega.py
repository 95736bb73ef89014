"""Bars and points as Vega-Lite draws them, whose script is smaller than plotly's: pages open sooner with it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sdviz.ui.charts.parts import Bars, Mark, Points
from sdviz.ui.theme import mark_colour

if TYPE_CHECKING:
    from sdviz.ui.charts import Chart

STAR = "M0,-1L.23,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.23,-.31Z"
_SHAPES = {"circle": "circle", "star": STAR, "cross": "cross", "diamond": "diamond"}
# of a logarithmic axis: half of one image, so that a bar of one is seen
_LOG_FLOOR = 0.5
# more letters below an axis than fit side by side on half a page are turned
_LETTERS_IN_A_ROW = 45


def vega_lite(chart: Chart) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A chart of bars or points as a table and a specification over it.

    Args:
        chart: Without lines and heat maps.

    Returns:
        Columns series, x, y, text and colour; and what `streamlit.vega_lite_chart` takes beside it.
    """
    parts: Sequence[Any] = chart.parts
    table = pd.concat([_rows(part) for part in parts], ignore_index=True)
    if chart.log_y:
        table = table[table["y"] > 0]
    layers = []
    for i, part in enumerate(parts):
        layer = _bars(part, chart, len(parts)) if isinstance(part, Bars) else _points(part, chart)
        layer["transform"] = [{"filter": {"field": "series", "equal": part.name}}]
        if i == 0 and not isinstance(part, Bars):
            layer["params"] = [{"name": "view", "select": "interval", "bind": "scales"}]
        layer["encoding"]["color"] = _colour(parts, part)
        layers.append(layer)
    layers += [_mark(one) for one in chart.marks]
    return table, {"height": chart.height, "layer": layers}


def legend(chart: Chart) -> str:
    """The names of several parts with their colours, HTML that wraps as words do; "" for one part."""
    if len(chart.parts) < 2:
        return ""
    names = [
        f'<span style="white-space:nowrap">{_sign(part)}{escape(part.name)}</span>'
        for part in chart.parts
        if isinstance(part, Bars | Points)
    ]
    return f'<div style="display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.8rem">{"".join(names)}</div>'


def _sign(part: Bars | Points) -> str:
    """A part's own sign in the legend: a star for a star, else a disc."""
    if isinstance(part, Points) and part.symbol == "star":
        return f'<span style="margin-right:.3em;color:{part.colour}">★</span>'
    disc = "display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.35em"
    return f'<span style="{disc};background:{part.colour}"></span>'


def _rows(part: Bars | Points) -> pd.DataFrame:
    colours = part.colour if isinstance(part.colour, str) else list(part.colour)
    texts = list(getattr(part, "texts", ())) or ""
    return pd.DataFrame(
        {"series": part.name, "x": list(part.x), "y": np.asarray(part.y), "text": texts, "colour": colours}
    )


def _colour(parts: Sequence[Any], part: Bars | Points) -> dict[str, Any]:
    if len(parts) == 1:
        return {"field": "colour", "type": "nominal", "scale": None}
    domain = [one.name for one in parts]
    return {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": domain, "range": [one.colour for one in parts]},
        "legend": None,  # Vega-Lite's own is cut where the page is narrow: see `legend`
    }


def _bars(part: Bars, chart: Chart, n_series: int) -> dict[str, Any]:
    names = [str(one) for one in part.x]
    turned = sum(map(len, names)) > _LETTERS_IN_A_ROW and not part.in_steps
    overlap = "greedy" if part.in_steps else False
    encoding: dict[str, Any] = {
        "x": {
            "field": "x",
            "type": "nominal",
            "sort": None,
            "scale": {"domain": names},
            "title": chart.x_title,
            "axis": {"labelAngle": -40 if turned else 0, "labelLimit": 150, "labelOverlap": overlap},
        },
        "y": _axis("y", chart.y_title, chart.y_range, chart.log_y, True),
        "tooltip": [
            {"field": "x", "type": "nominal", "title": chart.x_title or "x"},
            {"field": "y", "type": "quantitative", "title": chart.y_title or part.name},
        ],
    }
    if chart.log_y:
        encoding["y2"] = {"datum": _LOG_FLOOR}
    if n_series > 1:
        encoding["xOffset"] = {"field": "series", "sort": None}
    if part.lying:
        encoding["x"]["axis"] = {"labelAngle": 0, "labelLimit": 0, "labelOverlap": False}
        encoding["x"]["title"] = None  # upright, it would stand in the names
        encoding["x"], encoding["y"] = encoding["y"], encoding["x"]
    return {"mark": {"type": "bar"}, "encoding": encoding}


def _points(part: Points, chart: Chart) -> dict[str, Any]:
    mark: dict[str, Any] = {
        "type": "point",
        "filled": True,
        "shape": _SHAPES[part.symbol],
        "size": part.size_px**2,
        "opacity": 1.0 if part.ringed else 0.65,
    }
    if part.ringed:
        mark |= {"stroke": mark_colour(), "strokeWidth": 1.5}
    encoding = {
        "x": _axis("x", chart.x_title, chart.x_range, False, False),
        "y": _axis("y", chart.y_title, chart.y_range, chart.log_y, False),
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


def _mark(mark: Mark) -> dict[str, Any]:
    where = {"x" if mark.upright else "y": {"datum": mark.at}}
    return {
        "mark": {"type": "rule", "color": mark_colour(), "strokeDash": [6, 4], "size": 2, "tooltip": mark.text},
        "encoding": where,
    }
