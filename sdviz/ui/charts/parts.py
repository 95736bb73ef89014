"""What a chart is made of: lines, bars, points, a heat map, and marks across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Dash: TypeAlias = Literal["dash", "dot", "dashdot"]


@dataclass(frozen=True, eq=False)
class Line:
    """A line through points.

    Attributes:
        name: In the legend and as the CSV's column.
        x: (N,).
        y: (N,).
        colour: Its colour.
        dash: Drawn dashed; "dash", "dot" or "dashdot" says how.
        steps: Drawn as a staircase that keeps y until the next x, as a histogram or an ROC curve is.
        fill: Filled down to 0.
        markers: Points on it.
        in_legend: Named in the legend.
        wide: Drawn wider than the others.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    dash: bool | Dash = False
    steps: bool = False
    fill: bool = False
    markers: bool = False
    in_legend: bool = True
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Bars:
    """One bar for each name or place.

    Attributes:
        name: In the legend and as the CSV's column.
        x: str or numbers (N,).
        y: (N,).
        colour: One, or one for each bar.
        in_steps: Whether the names are steps of a scale: where there is no room some may be left out.
        lying: Whether the bars lie, each with its whole name at the left: for many or long names.
    """

    name: str
    x: np.ndarray | Sequence[str]
    y: np.ndarray
    colour: str | Sequence[str]
    in_steps: bool = False
    lying: bool = False


@dataclass(frozen=True, eq=False)
class Points:
    """Points without a line.

    Attributes:
        name: In the legend and as the CSV's series.
        x: (N,).
        y: (N,).
        colour: Of their faces.
        size_px: Across, on the page.
        ringed: With an edge in the colour of text, so that they stand out.
        symbol: "circle" or "star".
        texts: Shown when the mouse is on one, str (N,); none for "".
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    size_px: int = 6
    ringed: bool = False
    symbol: Literal["circle", "star"] = "circle"
    texts: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Heat:
    """A table of colours with a number in each cell.

    Attributes:
        name: What the numbers are.
        x: Names of the columns.
        y: Names of the rows.
        z: float (rows, columns); NaN is an empty cell.
        number: How a number is written, as in ".1f".
        signed: Whether the numbers are differences: 0 is pale, and what lies above and below has a colour each.
        from_top: Whether the first row is the top one.
        framed: Row and column of a cell with a frame around it.
    """

    name: str
    x: Sequence[str]
    y: Sequence[str]
    z: np.ndarray
    number: str = ".1f"
    signed: bool = False
    from_top: bool = False
    framed: tuple[int, int] | None = None

    @property
    def limit(self) -> float:
        """The largest number without its sign, 1 where all are 0."""
        sizes = np.abs(self.z[np.isfinite(self.z)])
        return float(sizes.max(initial=0.0)) or 1.0


@dataclass(frozen=True)
class Mark:
    """A straight line across the chart, in the colour of text.

    Attributes:
        at: Where.
        text: Next to it.
        upright: On the x axis; else on the y axis.
    """

    at: float
    text: str = ""
    upright: bool = True
