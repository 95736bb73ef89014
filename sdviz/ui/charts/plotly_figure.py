"""Draws lines and heat maps on the page with plotly."""

from html import escape

import plotly.graph_objects as go

from sdviz.ui.charts.cell_numbers import cell_numbers
from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.parts import Heat, Line
from sdviz.ui.theme import mark_colour

# numbers in more cells make a page slow
_MAX_INKED = 900


def plotly_figure(chart: Chart) -> go.Figure:
    """Draws a chart of lines or of a heat map in the colours of the theme in use."""
    figure = go.Figure()
    figure.update_xaxes(title=chart.x_title, range=chart.x_range, type="log" if chart.log_x else None)
    figure.update_yaxes(title=chart.y_title, range=chart.y_range, type="log" if chart.log_y else None)
    for part in chart.parts:
        if isinstance(part, Line):
            _add_line(figure, part, chart)
        elif isinstance(part, Heat):
            _add_heat(figure, part)
    for mark in chart.marks:
        (figure.add_vline if mark.upright else figure.add_hline)(
            mark.at,
            line={"color": mark_colour(), "width": 2, "dash": "dash"},
            annotation_text=mark.text,
            annotation_position="top right",
        )
    if chart.small:
        figure.update_xaxes(title=None, nticks=5).update_yaxes(title=None, nticks=5)
        figure.update_layout(
            height=chart.height,
            title={"text": chart.title, "font": {"size": 13}, "x": 0, "xanchor": "left"},
            margin={"l": 8, "r": 8, "t": 30, "b": 8},
            showlegend=False,
            uirevision=True,  # new points keep the person's zoom
        )
        return figure
    has_legend = len(chart.parts) > 1
    if chart.right_title:
        right = {"title": chart.right_title, "overlaying": "y", "side": "right", "showgrid": False}
        figure.update_layout(yaxis2=right | {"tickformat": ".0f"})
    return figure.update_layout(
        height=chart.height,
        margin={"l": 10, "r": 10, "t": 34 if has_legend else 12, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        showlegend=has_legend,
        hoverlabel={"font_size": 13},
    )


def _add_line(figure: go.Figure, part: Line, chart: Chart) -> None:
    hover = ", ".join(filter(None, (_literal(part.name), f"{chart.x_title} %{{x}}: %{{y:.4f}}<extra></extra>")))
    figure.add_scatter(
        x=part.x,
        y=part.y,
        name=_literal(part.name),
        mode="lines+markers" if part.markers else "lines",
        line={
            "color": part.colour,
            "width": 2 if chart.small else 4.5 if part.wide else 2.5,
            "dash": part.dash if isinstance(part.dash, str) else "dash" if part.dash else "solid",
            "shape": "hv" if part.steps else "linear",
        },
        fill="tozeroy" if part.fill else None,
        opacity=1.0 if chart.small else 0.9,
        showlegend=part.in_legend,
        yaxis="y2" if part.on_right else None,
        hovertemplate=hover if chart.small else None,
    )


def _add_heat(figure: go.Figure, part: Heat) -> None:
    is_inked = part.z.size <= _MAX_INKED
    figure.add_heatmap(
        x=[_literal(one) for one in part.x],
        y=[_literal(one) for one in part.y],
        z=part.z,
        colorscale="PuOr_r" if part.signed else "Viridis",
        zmin=-part.limit if part.signed else None,
        zmax=part.limit if part.signed else None,
        texttemplate=None if is_inked else f"%{{z:{part.number}}}",
        hoverongaps=False,
        colorbar={"title": part.name, "thickness": 12},
    )
    # a name may be a number
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed" if part.from_top else None)
    if is_inked:
        # placed by index: a name such as "5" would be taken for a number
        figure.layout.annotations = [
            {"x": column, "y": row, "text": text, "font": {"color": ink, "size": 12}, "showarrow": False}
            for row, column, text, ink in cell_numbers(part)
        ]
    if part.framed is not None:
        # black on white is visible on every colour
        row, column = part.framed
        where = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.layout.shapes = [
            {"type": "rect", "line": {"color": colour, "width": width}, **where}
            for colour, width in (("#FFFFFF", 6), ("#000000", 2.5))
        ]


def _literal(text: object) -> str:
    """Escapes a name, which may come from a person: plotly reads names as HTML."""
    return escape(str(text), quote=False)
