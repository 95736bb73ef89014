"""Shows charts on a page, with their downloads."""

import re
from collections.abc import Callable, Mapping

import streamlit as st

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.files import chart_file
from sdviz.ui.charts.parts import Bars, Dots
from sdviz.ui.charts.plotly_figure import plotly_figure
from sdviz.ui.charts.vega import legend, vega_lite
from sdviz.ui.widgets import download

_SAVE_PX = 120


def file_name(title: str) -> str:
    """Returns the name of a download without its ending: ASCII letters and digits, and single dashes."""
    plain = title.lower().replace("α", "alpha").replace("·", "x")
    return "sdviz-" + re.sub(r"[^a-z0-9]+", "-", plain)[:60].strip("-")


def show_chart(chart: Chart, provenance: Mapping[str, str], *, key: str, caption: str) -> None:
    """Shows a chart, a caption that tells a newcomer what it shows, and its downloads."""
    draw_chart(chart, key)
    row = st.container(horizontal=True, vertical_alignment="center")
    row.container(width="stretch").caption(caption)
    # a relative width would be too narrow for the button's word on half a page
    with row.container(width=_SAVE_PX):
        offer_downloads(chart, provenance, key=key)


def draw_chart(chart: Chart, key: str) -> None:
    """Shows a chart without caption and downloads."""
    if isinstance(chart.parts[0], Bars | Dots):
        if names := legend(chart):
            st.html(names)
        table, spec = vega_lite(chart)
        st.vega_lite_chart(table, spec, key=key, width="stretch", height=chart.height)
    else:
        config = {"displayModeBar": False} if chart.small else {"displaylogo": False}
        st.plotly_chart(plotly_figure(chart), key=key, width="stretch", config=config)


def offer_downloads(
    chart: Chart, provenance: Mapping[str, str], *, key: str, more: tuple[str, Callable[[], str]] | None = None
) -> None:
    """Shows a popover with the chart as PNG, SVG and CSV; `more` is label and maker of another CSV."""
    name = file_name(chart.title)
    downloads: list[tuple[str, str, str, Callable[[], bytes | str]]] = [
        ("png", "PNG", f"{name}.png", lambda: chart_file(chart, "png", provenance)),
        ("svg", "SVG", f"{name}.svg", lambda: chart_file(chart, "svg", provenance)),
        ("csv", "CSV", f"{name}.csv", lambda: chart.csv(provenance)),
    ]
    if more is not None:
        downloads.append(("more", more[0], f"{name}-all.csv", more[1]))
    with st.popover("Save", icon=":material/download:", width="stretch"):
        for kind, label, file, make in downloads:
            download(label, make, file, key=f"{key}_{kind}", width="stretch", icon=None)
