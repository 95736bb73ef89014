"""Charts, each drawn from one description: on the page, and by matplotlib for PNG and SVG.

On the page, Vega-Lite draws bars and points, and plotly draws lines and heat maps. Most pages open with bars or
points, and Vega-Lite's script loads faster than plotly's.
"""

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.show import draw_chart, file_name, offer_downloads, show_chart

__all__ = ["Chart", "draw_chart", "file_name", "offer_downloads", "show_chart"]
