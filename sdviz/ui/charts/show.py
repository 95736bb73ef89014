"""A chart on the page, with its downloads."""

import re
from collections.abc import Callable, Mapping

import streamlit as st

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.files import chart_file
from sdviz.ui.charts.parts import Bars, Points
from sdviz.ui.charts.plotly_figure import plotly_figure
from sdviz.ui.charts.vega import legend, vega_lite

_SAVE_PX = 120


def file_name(title: str) -> str:
    """Of a download, without its ending: ASCII letters and numbers, and single dashes between them."""
    plain = title.lower().replace("α", "alpha").replace("·", "x")
    return "sdviz-" + re.sub(r"[^a-z0-9]+", "-", plain)[:60].strip("-")


def show_chart(chart: Chart, provenance: Mapping[str, str], *, key: str, caption: str) -> None:
    """The chart, a caption that tells a newcomer what it shows, and its downloads."""
    if isinstance(chart.parts[0], Bars | Points):
        if names := legend(chart):
            st.html(names)
        table, spec = vega_lite(chart)
        st.vega_lite_chart(table, spec, key=key, width="stretch", height=chart.height)
    else:
        st.plotly_chart(plotly_figure(chart), key=key, width="stretch", config={"displaylogo": False})
    row = st.container(horizontal=True, vertical_alignment="center")
    row.container(width="stretch").caption(caption)
    # a share of half a page would be too narrow for the button's word
    with row.container(width=_SAVE_PX):
        offer_downloads(chart, provenance, key=key)


def offer_downloads(
    chart: Chart, provenance: Mapping[str, str], *, key: str, more: tuple[str, Callable[[], str]] | None = None
) -> None:
    """A popover with the chart as PNG, SVG and CSV; `more` is the name of a second CSV and what makes it."""
    name = file_name(chart.title)
    downloads: list[tuple[str, str, str, str, Callable[[], bytes | str]]] = [
        ("png", "PNG", f"{name}.png", "image/png", lambda: chart_file(chart, "png", provenance)),
        ("svg", "SVG", f"{name}.svg", "image/svg+xml", lambda: chart_file(chart, "svg", provenance)),
        ("csv", "CSV", f"{name}.csv", "text/csv", lambda: chart.csv(provenance)),
    ]
    if more is not None:
        downloads.append(("more", more[0], f"{name}-all.csv", "text/csv", more[1]))
    with st.popover("Save", icon=":material/download:", width="stretch"):
        for kind, label, file, mime, make in downloads:
            st.download_button(label, make, file, mime, key=f"{key}_{kind}", on_click="ignore", width="stretch")
