"""Charts that are drawn twice from one description: on the page, and by matplotlib for PNG and SVG.

On the page Vega-Lite draws bars and points, which most pages open with: its script is smaller than plotly's.
Plotly draws lines and heat maps.
"""

from sdviz.ui.charts.chart import Chart
from sdviz.ui.charts.show import file_name, offer_downloads, show_chart

__all__ = ["Chart", "file_name", "offer_downloads", "show_chart"]
