"""Charts that are drawn twice from one description: on the page, and by matplotlib for PNG and SVG.

On the page Vega-Lite draws bars and points, which most pages open with; plotly draws the rest.

A chart also gives its numbers as CSV. All three carry where the numbers come from.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from plotly.colors import get_colorscale, sample_colorscale

from sdviz.analysis.provenance import footer
from sdviz.evaluation.writing import csv_table
from sdviz.ui.charts.parts import Bars, Heat, Line, Mark, Points
from sdviz.ui.charts.vega import legend, vega_lite
from sdviz.ui.theme import DARK_TEXT, mark_colour, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LIGHT_POINTS = 4_000
_PNG_DPI = 144
_SAVE_PX = 120
_WIDTH_IN = 8.0
# in files
_DASHES: dict[bool | str, str] = {False: "-", True: "--", "dash": "--", "dot": ":", "dashdot": "-."}
# with more cells, each with its number, a page would be slow
_MAX_INKED = 900
_LEGEND_LINE_IN = 0.19
_MARKERS = {"circle": "o", "star": "*", "cross": "P", "diamond": "D"}


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart.

    Attributes:
        title: Of downloads; on the page the text above it says what it is.
        x_title: With its unit.
        y_title: With its unit.
        parts: Drawn in this order; a `Heat` stands alone.
        marks: Lines across.
        x_range: Ends of the axis, None for what fits.
        y_range: Ends of the axis, None for what fits.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is logarithmic.
        height: On the page, px.
    """

    title: str
    x_title: str
    y_title: str
    parts: Sequence[Line | Bars | Points | Heat]
    marks: Sequence[Mark] = field(default_factory=tuple)
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    log_x: bool = False
    log_y: bool = False
    height: int = 360

    @property
    def is_light(self) -> bool:
        """Whether it is bars alone, or some thousands of points at most: what Vega-Lite draws sooner."""
        if all(isinstance(part, Bars) for part in self.parts):
            return True
        points = [len(part.x) for part in self.parts if isinstance(part, Points)]
        return len(points) == len(self.parts) and sum(points) <= MAX_LIGHT_POINTS

    def figure(self) -> go.Figure:
        """As the page shows it, in the colours of the theme on show."""
        figure = go.Figure()
        for part in self.parts:
            if isinstance(part, Line):
                figure.add_scatter(
                    x=part.x,
                    y=part.y,
                    name=_literal(part.name),
                    mode="lines+markers" if part.markers else "lines",
                    line={
                        "color": part.colour,
                        "width": 4.5 if part.wide else 2.5,
                        "dash": part.dash if isinstance(part.dash, str) else "dash" if part.dash else "solid",
                        "shape": "hv" if part.steps else "linear",
                    },
                    fill="tozeroy" if part.fill else None,
                    opacity=0.9,
                    showlegend=part.in_legend,
                )
            elif isinstance(part, Bars):
                figure.add_bar(x=list(part.x), y=part.y, name=_literal(part.name), marker_color=part.colour)
            elif isinstance(part, Points):
                figure.add_scattergl(
                    x=part.x,
                    y=part.y,
                    name=_literal(part.name),
                    mode="markers",
                    marker={
                        "color": part.colour,
                        "size": part.size_px,
                        "symbol": part.symbol,
                        "opacity": 1.0 if part.ringed else 0.65,
                        "line": {"width": 1.5 if part.ringed else 0, "color": mark_colour()},
                    },
                    text=[_literal(one) for one in part.texts] or None,
                    customdata=list(part.ids) or None,
                    hovertemplate=f"%{{text}}<extra>{_literal(part.name)}</extra>" if len(part.texts) else None,
                )
            else:
                figure.add_heatmap(
                    x=[_literal(one) for one in part.x],
                    y=[_literal(one) for one in part.y],
                    z=part.z,
                    colorscale="PuOr_r" if part.signed else "Viridis",
                    zmin=-part.limit if part.signed else None,
                    zmax=part.limit if part.signed else None,
                    texttemplate=f"%{{z:{part.number}}}" if part.z.size > _MAX_INKED else None,
                    hoverongaps=False,
                    colorbar={"title": part.name, "thickness": 12},
                )
                if part.z.size <= _MAX_INKED:
                    figure.layout.annotations = _numbers(part)
                if part.framed is not None:
                    figure.layout.shapes = _frame(part.framed)
        for mark in self.marks:
            add = figure.add_vline if mark.upright else figure.add_hline
            where = {"x": mark.at} if mark.upright else {"y": mark.at}
            add(
                **where,
                line={"color": mark_colour(), "width": 2, "dash": "dash"},
                annotation_text=mark.text,
                annotation_position="top right",
            )
        figure.update_xaxes(title=self.x_title, range=self.x_range, type="log" if self.log_x else None)
        figure.update_yaxes(title=self.y_title, range=self.y_range, type="log" if self.log_y else None)
        is_heat = any(isinstance(part, Heat) for part in self.parts)
        if is_heat:  # names, also where they are numbers
            figure.update_xaxes(type="category")
            figure.update_yaxes(type="category")
            if any(isinstance(part, Heat) and part.from_top for part in self.parts):
                figure.update_yaxes(autorange="reversed")
        has_legend = not is_heat and len(self.parts) > 1
        return tidy(figure, self.height, has_legend)

    def picture(self, kind: str, provenance: Mapping[str, str]) -> bytes:
        """A file of it, dark on white, with the provenance at its foot and in its metadata.

        Args:
            kind: "png" or "svg".
            provenance: See `sdviz.analysis.provenance`.
        """
        from matplotlib.figure import Figure  # slow to import, and wanted for downloads only

        lying = [part for part in self.parts if isinstance(part, Bars) and part.lying]
        height_in = max([4.8, *(1.6 + 0.21 * len(part.x) for part in lying)])
        canvas = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        axes = canvas.add_subplot()
        for part in self.parts:
            _draw(axes, part)
        for mark in self.marks:
            (axes.axvline if mark.upright else axes.axhline)(
                mark.at, color=DARK_TEXT, linestyle="--", linewidth=1.4
            )
            if mark.text and mark.upright:
                axes.annotate(
                    mark.text, (mark.at, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="bottom"
                )
        axes.set_title(_no_formula(self.title), fontsize=11, loc="left", pad=16)
        axes.set_xlabel(self.y_title if lying else self.x_title)
        axes.set_ylabel(self.x_title if lying else self.y_title)
        if self.x_range is not None:
            axes.set_xlim(*self.x_range)
        if self.y_range is not None:
            axes.set_ylim(*self.y_range)
        if self.log_x:
            _log_x(axes)
        if self.log_y:
            axes.set_yscale("log")
        if len(self.parts) > 1:
            _legend_below(canvas, axes)
        text = footer(provenance)
        canvas.supxlabel(_wrapped(_no_formula(text), 130), fontsize=6, color="#5A6572", x=0.01, ha="left")
        stream = io.BytesIO()
        about = {"Title": self.title, "Description": text}
        canvas.savefig(stream, format=kind, dpi=_PNG_DPI, metadata=about)
        return stream.getvalue()

    def csv(self, provenance: Mapping[str, str]) -> str:
        """Its numbers, one line each: series, x, y; a `Heat` gives column, row, value."""
        if any(isinstance(part, Heat) for part in self.parts):
            header = [self.x_title or "x", self.y_title or "y", "value"]
        else:
            header = ["series", self.x_title or "x", self.y_title or "y"]
        rows: list[list[object]] = []
        for part in self.parts:
            if isinstance(part, Heat):
                for i, row in enumerate(part.y):
                    for j, column in enumerate(part.x):
                        rows.append([column, row, "" if np.isnan(part.z[i, j]) else repr(float(part.z[i, j]))])
                continue
            for x, y in zip(np.asarray(part.x).tolist(), np.asarray(part.y).tolist(), strict=True):
                rows.append([part.name, x, y])
        return csv_table(header, rows, provenance, self.title)


def file_name(title: str) -> str:
    """Of a download, without its ending: ASCII letters and numbers, and single dashes between them."""
    plain = title.lower().replace("α", "alpha").replace("·", "x")
    return "sdviz-" + re.sub(r"[^a-z0-9]+", "-", plain)[:60].strip("-")


def show_chart(chart: Chart, provenance: Mapping[str, str], *, key: str, caption: str) -> None:
    """The chart, one line on what it shows, and its downloads.

    Args:
        chart: What to draw.
        provenance: Where its numbers come from.
        key: The widgets' key.
        caption: "What am I looking at", for a newcomer.
    """
    if chart.is_light:
        if words := legend(chart):
            st.html(words)
        table, spec = vega_lite(chart)
        st.vega_lite_chart(table, spec, key=key, width="stretch", height=chart.height)
    else:
        st.plotly_chart(chart.figure(), key=key, width="stretch", config={"displaylogo": False})
    row = st.container(horizontal=True, vertical_alignment="center")
    row.container(width="stretch").caption(caption)
    # a share of half a page would be too narrow for the button's word
    with row.container(width=_SAVE_PX):
        offer_downloads(chart, provenance, key=key)


def offer_downloads(
    chart: Chart,
    provenance: Mapping[str, str],
    *,
    key: str,
    more: tuple[str, Callable[[], str]] | None = None,
) -> None:
    """A popover with the chart as PNG, SVG and CSV, made when they are asked for.

    Args:
        chart: What to save.
        provenance: Where its numbers come from.
        key: The widgets' key.
        more: The name of a second CSV, and what makes it.
    """
    name = file_name(chart.title)
    lines = dict(provenance)
    with st.popover("Save", icon=":material/download:", width="stretch"):
        st.download_button(
            "PNG",
            lambda: chart.picture("png", lines),
            f"{name}.png",
            "image/png",
            key=f"{key}_png",
            on_click="ignore",
            width="stretch",
        )
        st.download_button(
            "SVG",
            lambda: chart.picture("svg", lines),
            f"{name}.svg",
            "image/svg+xml",
            key=f"{key}_svg",
            on_click="ignore",
            width="stretch",
        )
        st.download_button(
            "CSV",
            lambda: chart.csv(lines),
            f"{name}.csv",
            "text/csv",
            key=f"{key}_csv",
            on_click="ignore",
            width="stretch",
        )
        if more is not None:
            st.download_button(
                more[0],
                more[1],
                f"{name}-all.csv",
                "text/csv",
                key=f"{key}_more",
                on_click="ignore",
                width="stretch",
            )


def _literal(text: object) -> str:
    """For plotly, which reads a name as HTML; names are people's."""
    return escape(str(text), quote=False)


def _no_formula(text: object) -> str:
    """For matplotlib, which reads what stands between two dollars as a formula."""
    return str(text).replace("$", r"\$")


def _draw(axes: Axes, part: Line | Bars | Points | Heat) -> None:
    if isinstance(part, Line):
        axes.plot(
            part.x,
            part.y,
            label=_no_formula(part.name) if part.in_legend else "_nolegend_",
            color=part.colour,
            linestyle=_DASHES[part.dash],
            drawstyle="steps-post" if part.steps else "default",
            linewidth=2.8 if part.wide else 1.5,
            marker="o" if part.markers else None,
            # a point alone lies on a line of its own colour: a dark edge lifts it off
            markersize=4 if len(part.x) > 1 else 7,
            markeredgecolor=None if len(part.x) > 1 else DARK_TEXT,
        )
        if part.fill:
            axes.fill_between(
                part.x, part.y, color=part.colour, alpha=0.25, step="post" if part.steps else None, linewidth=0
            )
        return
    if isinstance(part, Points):
        axes.scatter(
            part.x,
            part.y,
            s=(0.7 * part.size_px) ** 2,
            label=_no_formula(part.name),
            color=part.colour,
            marker=_MARKERS.get(part.symbol, "o"),
            alpha=1.0 if part.ringed else 0.65,
            edgecolors=DARK_TEXT if part.ringed else "none",
        )
        return
    if isinstance(part, Bars):
        colour = part.colour if isinstance(part.colour, str) else list(part.colour)
        names = [_no_formula(x) for x in part.x]
        if part.lying:
            axes.barh(names, part.y, label=_no_formula(part.name), color=colour)
            axes.invert_yaxis()  # the first one on top
            axes.tick_params(axis="y", labelsize=8)
            axes.margins(y=0.01)
            return
        axes.bar(names, part.y, label=_no_formula(part.name), color=colour)
        axes.tick_params(axis="x", labelrotation=30 if len(part.x) > 6 else 0)
        return
    shown = axes.imshow(
        part.z,
        cmap="PuOr_r" if part.signed else "viridis",
        aspect="auto",
        origin="upper" if part.from_top else "lower",
        vmin=-part.limit if part.signed else None,
        vmax=part.limit if part.signed else None,
    )
    axes.set_xticks(range(len(part.x)), [_no_formula(x) for x in part.x], rotation=30 if len(part.x) > 6 else 0)
    axes.set_yticks(range(len(part.y)), [_no_formula(y) for y in part.y])
    for (row, column), value in np.ndenumerate(part.z):
        if np.isfinite(value):
            ink = ink_on(np.asarray(shown.cmap(shown.norm(value))).tolist())
            axes.text(column, row, format(value, part.number), ha="center", va="center", color=ink, fontsize=8)
    if part.framed is not None:
        from matplotlib.patches import Rectangle

        row, column = part.framed
        for colour, width in (("#FFFFFF", 5), ("#000000", 2)):
            place = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3))
    assert axes.figure is not None
    axes.figure.colorbar(shown, ax=axes, label=part.name)


def _log_x(axes: Axes) -> None:
    """A logarithmic axis with the numbers themselves, as pages have it, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend_below(canvas: Figure, axes: Axes) -> None:
    """Names under the x axis, where they lie over no curve; the picture grows by their lines."""
    from matplotlib.transforms import ScaledTranslation

    names = axes.get_legend_handles_labels()[1]
    if not names:
        return
    columns = 2 if max(map(len, names)) <= 48 else 1
    width, height = canvas.get_size_inches()
    canvas.set_size_inches(width, height + _LEGEND_LINE_IN * -(-len(names) // columns))
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -0.45, canvas.dpi_scale_trans),
        borderaxespad=0,
        fontsize=8,
        frameon=False,
        ncols=columns,
        handlelength=3,
    )


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever stands out more on a colour, red, green, blue of 0..1 (WCAG's luminance)."""
    rgb = np.asarray(colour[:3], np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "#000000" if float(linear @ (0.2126, 0.7152, 0.0722)) > 0.179 else "#FFFFFF"


def _numbers(part: Heat) -> list[go.layout.Annotation]:
    """The number of each cell, in what can be read on its colour."""
    found = part.z[np.isfinite(part.z)]
    if not len(found):
        return []
    low, high = (-part.limit, part.limit) if part.signed else (float(found.min()), float(found.max()))
    scale = get_colorscale("PuOr_r" if part.signed else "Viridis")
    numbers = []
    for (row, column), value in np.ndenumerate(part.z):
        if not np.isfinite(value):
            continue
        at = (float(value) - low) / (high - low) if high > low else 0.5
        (colour,) = sample_colorscale(scale, [at], colortype="tuple")
        numbers.append(
            go.layout.Annotation(
                x=column,  # by place: a name that is a number would be taken for one
                y=row,
                text=format(value, part.number),
                font={"color": ink_on(colour), "size": 12},
                showarrow=False,
            )
        )
    return numbers


def _frame(cell: tuple[int, int]) -> list[go.layout.Shape]:
    """White around black: it stands out on every colour."""
    row, column = cell
    lines = ({"color": "#FFFFFF", "width": 6}, {"color": "#000000", "width": 2.5})
    where = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return [go.layout.Shape(type="rect", line=line, **where) for line in lines]


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
