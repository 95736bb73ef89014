"""Small curves of a run's losses and measures, three in a row."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import streamlit as st

A_ROW = 3


def curve_line(
    steps: Sequence[int], values: Sequence[float], colour: str, name: str = "", dash: str = "solid"
) -> go.Scatter:
    """One run's values over its steps."""
    return go.Scatter(
        x=steps,
        y=values,
        name=name,
        mode="lines",
        line={"width": 2, "color": colour, "dash": dash},
        hovertemplate=f"{name}, step %{{x}}: %{{y:.4f}}<extra></extra>".removeprefix(", "),
    )


def show_curves(curves: Mapping[str, tuple[str, Sequence[go.Scatter]]], height: int) -> None:
    """Draws curves, given as widget key -> (title, lines)."""
    for first in range(0, len(curves), A_ROW):
        for column, (key, (title, lines)) in zip(st.columns(A_ROW), list(curves.items())[first:], strict=False):
            figure = go.Figure(lines)
            figure.update_layout(
                height=height,
                title={"text": title, "font": {"size": 13}, "x": 0, "xanchor": "left"},
                margin={"l": 8, "r": 8, "t": 30, "b": 8},
                xaxis={"title": None, "nticks": 5},
                yaxis={"title": None, "nticks": 5},
                showlegend=False,
                uirevision=key,
            )
            with column:
                st.plotly_chart(figure, key=key, width="stretch", config={"displayModeBar": False})
