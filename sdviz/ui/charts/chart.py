"""The description of a chart, from which pages and files draw it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdviz.table_files import csv_text
from sdviz.ui.charts.parts import Bars, Dots, Heat, Line, Mark


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart."""

    title: str  # of downloads, and of a small chart on the page
    x_title: str  # with its unit
    y_title: str  # with its unit
    # all of one kind, drawn in this order; a `Heat` is alone
    parts: Sequence[Line] | Sequence[Bars] | Sequence[Dots] | Sequence[Heat]
    marks: Sequence[Mark] = ()  # in a chart of lines
    x_range: tuple[float, float] | None = None  # ends of the axis, None to fit the data
    y_range: tuple[float, float] | None = None  # ends of the axis, None to fit the data
    log_x: bool = False
    log_y: bool = False
    height: int = 360  # on the page, px
    right_title: str = ""  # of a second y axis, for lines `on_right`; on the page only
    small: bool = False  # one of several in a row, with its title inside and no legend; on the page only

    def csv(self, provenance: Mapping[str, str]) -> str:
        """Returns its numbers, one line each: series, x, y; for a `Heat` column, row, value."""
        axes = [self.x_title or "x", self.y_title or "y"]
        is_heat = any(isinstance(part, Heat) for part in self.parts)
        header = [*axes, "value"] if is_heat else ["series", *axes]
        return csv_text(header, [row for part in self.parts for row in _rows(part)], provenance, self.title)


def _rows(part: Line | Bars | Dots | Heat) -> Iterator[tuple[object, object, object]]:
    if isinstance(part, Heat):
        for (row, column), value in np.ndenumerate(part.z):
            yield part.x[column], part.y[row], float(value)
        return
    for x, y in zip(np.asarray(part.x).tolist(), np.asarray(part.y).tolist(), strict=True):
        yield part.name, x, y
