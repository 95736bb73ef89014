"""Small curves of a run's losses and measures, three in a row."""

from collections.abc import Mapping, Sequence

import streamlit as st

from sdviz.ui.charts import Chart, draw_chart
from sdviz.ui.charts.parts import Line
from sdviz.ui.components.stage_strip import stage_title

A_ROW = 3


def training_title(stage: str, training: str) -> str:
    """The name of a stage, and that of its training unless it is ""."""
    return ", ".join(filter(None, (stage_title(stage), training)))


def show_curves(curves: Mapping[str, tuple[str, Sequence[Line]]], height: int) -> None:
    """Shows lines over the steps of a run, given as widget key -> (title, lines)."""
    for first in range(0, len(curves), A_ROW):
        for column, (key, (title, lines)) in zip(st.columns(A_ROW), list(curves.items())[first:], strict=False):
            with column:
                draw_chart(Chart(title, "step", "", lines, height=height, small=True), key)
