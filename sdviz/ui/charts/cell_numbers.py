"""The numbers in the cells of a heat map, each black or white, whichever is easier to read on its cell."""

from collections.abc import Iterator, Sequence

import numpy as np
from plotly.colors import get_colorscale, sample_colorscale

from sdviz.ui.charts.parts import Heat


def cell_numbers(part: Heat) -> Iterator[tuple[int, int, str, str]]:
    """Yields row, column, number and text colour of each cell that is not empty."""
    found = part.z[np.isfinite(part.z)]
    if not len(found):
        return
    low, high = (-part.limit, part.limit) if part.signed else (float(found.min()), float(found.max()))
    scale = get_colorscale("PuOr_r" if part.signed else "Viridis")
    for (row, column), value in np.ndenumerate(part.z):
        if np.isfinite(value):
            at = (float(value) - low) / (high - low) if high > low else 0.5
            (colour,) = sample_colorscale(scale, [at], colortype="tuple")
            yield row, column, format(value, part.number), ink_on(colour)


def ink_on(colour: Sequence[float]) -> str:
    """Returns black or white, whichever has more contrast to `colour`: red, green, blue in 0..1 (WCAG)."""
    rgb = np.asarray(colour[:3], np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "#000000" if float(linear @ (0.2126, 0.7152, 0.0722)) > 0.179 else "#FFFFFF"
