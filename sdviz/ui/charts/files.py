"""Draws a chart as PNG or SVG with matplotlib, dark on white, with where its numbers come from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING

from sdviz.analysis.provenance import footer
from sdviz.ui.charts.cell_numbers import cell_numbers
from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.parts import Bars, Dots, Heat, Line
from sdviz.ui.theme import DARK_TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PNG_DPI = 144
_WIDTH_IN = 8.0
_LEGEND_LINE_IN = 0.19
_DASHES: dict[bool | str, str] = {False: "-", True: "--", "dash": "--", "dot": ":", "dashdot": "-."}


def chart_file(chart: Chart, kind: str, provenance: Mapping[str, str]) -> bytes:
    """Returns the file, "png" or "svg", with the provenance below the chart and in the metadata."""
    from matplotlib.figure import Figure  # slow to import, only for downloads

    lying = [part for part in chart.parts if isinstance(part, Bars) and part.lying]
    height_in = max([4.8, *(1.6 + 0.21 * len(part.x) for part in lying)])
    canvas = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = canvas.add_subplot()
    for part in chart.parts:
        _draw(axes, part)
    for mark in chart.marks:
        (axes.axvline if mark.upright else axes.axhline)(
            mark.at, color=DARK_TEXT, linestyle="--", linewidth=1.4
        )
        if mark.text and mark.upright:
            axes.annotate(
                mark.text, (mark.at, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="bottom"
            )
    axes.set_title(_no_formula(chart.title), fontsize=11, loc="left", pad=16)
    axes.set_xlabel(chart.y_title if lying else chart.x_title)
    axes.set_ylabel(chart.x_title if lying else chart.y_title)
    if chart.x_range is not None:
        axes.set_xlim(*chart.x_range)
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    if chart.log_x:
        _log_x(axes)
    if chart.log_y:
        axes.set_yscale("log")
    if len(chart.parts) > 1:
        _legend_below(canvas, axes)
    text = footer(provenance)
    foot = fill(_no_formula(text), 130, break_long_words=False, break_on_hyphens=False)
    canvas.supxlabel(foot, fontsize=6, color="#5A6572", x=0.01, ha="left")
    stream = io.BytesIO()
    about = {"Title": chart.title, "Description": text}
    canvas.savefig(stream, format=kind, dpi=_PNG_DPI, metadata=about)
    return stream.getvalue()


def _no_formula(text: object) -> str:
    """Escapes dollar signs: matplotlib takes text between two of them for a formula."""
    return str(text).replace("$", r"\$")


def _draw(axes: Axes, part: Line | Bars | Dots | Heat) -> None:
    if isinstance(part, Line):
        _draw_line(axes, part)
    elif isinstance(part, Dots):
        axes.scatter(
            part.x,
            part.y,
            s=(0.7 * part.size_px) ** 2,
            label=_no_formula(part.name),
            color=part.colour,
            marker="*" if part.symbol == "star" else "o",
            alpha=1.0 if part.ringed else 0.65,
            edgecolors=DARK_TEXT if part.ringed else "none",
        )
    elif isinstance(part, Bars):
        _draw_bars(axes, part)
    else:
        _draw_heat(axes, part)


def _draw_line(axes: Axes, part: Line) -> None:
    axes.plot(
        part.x,
        part.y,
        label=_no_formula(part.name) if part.in_legend else "_nolegend_",
        color=part.colour,
        linestyle=_DASHES[part.dash],
        drawstyle="steps-post" if part.steps else "default",
        linewidth=2.8 if part.wide else 1.5,
        marker="o" if part.markers else None,
        # a single point gets a dark edge: it may lie on a line of its own colour
        markersize=4 if len(part.x) > 1 else 7,
        markeredgecolor=None if len(part.x) > 1 else DARK_TEXT,
    )
    if part.fill:
        axes.fill_between(
            part.x, part.y, color=part.colour, alpha=0.25, step="post" if part.steps else None, linewidth=0
        )


def _draw_bars(axes: Axes, part: Bars) -> None:
    colour = part.colour if isinstance(part.colour, str) else list(part.colour)
    names = [_no_formula(x) for x in part.x]
    (axes.barh if part.lying else axes.bar)(names, part.y, label=_no_formula(part.name), color=colour)
    if part.lying:
        axes.invert_yaxis()  # the first one on top
        axes.tick_params(axis="y", labelsize=8)
        axes.margins(y=0.01)
    else:
        axes.tick_params(axis="x", labelrotation=30 if len(part.x) > 6 else 0)


def _draw_heat(axes: Axes, part: Heat) -> None:
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
    for row, column, number, ink in cell_numbers(part):
        axes.text(column, row, number, ha="center", va="center", color=ink, fontsize=8)
    if part.framed is not None:
        from matplotlib.patches import Rectangle

        row, column = part.framed
        for colour, width in (("#FFFFFF", 5), ("#000000", 2)):
            place = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3))
    assert axes.figure is not None
    axes.figure.colorbar(shown, ax=axes, label=part.name)


def _log_x(axes: Axes) -> None:
    """Makes the x axis logarithmic, with plain numbers as on pages, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend_below(canvas: Figure, axes: Axes) -> None:
    """Puts the names below the x axis, clear of all curves, and makes the picture taller by their lines."""
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
