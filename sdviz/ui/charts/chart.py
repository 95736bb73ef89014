"""The description of a chart, from which the page and the files draw it; it gives its numbers as CSV."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdviz.evaluation.writing import csv_table
from sdviz.ui.charts.parts import Bars, Heat, Line, Mark, Points


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart."""

    title: str  # of downloads; on the page the text above it says what it is
    x_title: str  # with its unit
    y_title: str  # with its unit
    # all of one kind, drawn in this order; a `Heat` stands alone
    parts: Sequence[Line] | Sequence[Bars] | Sequence[Points] | Sequence[Heat]
    marks: Sequence[Mark] = ()  # lines across, in a chart of lines
    x_range: tuple[float, float] | None = None  # ends of the axis, None for what fits
    y_range: tuple[float, float] | None = None  # ends of the axis, None for what fits
    log_x: bool = False  # whether the x axis is logarithmic
    log_y: bool = False  # whether the y axis is logarithmic
    height: int = 360  # on the page, px

    def csv(self, provenance: Mapping[str, str]) -> str:
        """Its numbers, one line each: series, x, y; a `Heat` gives column, row, value."""
        axes = [self.x_title or "x", self.y_title or "y"]
        is_heat = any(isinstance(part, Heat) for part in self.parts)
        header = [*axes, "value"] if is_heat else ["series", *axes]
        return csv_table(header, [row for part in self.parts for row in _rows(part)], provenance, self.title)


def _rows(part: Line | Bars | Points | Heat) -> Iterator[tuple[object, object, object]]:
    if isinstance(part, Heat):
        for (row, column), value in np.ndenumerate(part.z):
            yield part.x[column], part.y[row], "" if np.isnan(value) else repr(float(value))
        return
    for x, y in zip(np.asarray(part.x).tolist(), np.asarray(part.y).tolist(), strict=True):
        yield part.name, x, y
