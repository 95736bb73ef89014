"""What a chart is made of: lines, bars, points, a heat map, and marks across."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Dash: TypeAlias = Literal["dash", "dot", "dashdot"]


@dataclass(frozen=True, eq=False)
class Line:
    """A line through points."""

    name: str  # in the legend and as the CSV's column
    x: np.ndarray  # (N,)
    y: np.ndarray  # (N,)
    colour: str
    dash: bool | Dash = False  # drawn dashed; "dash", "dot" or "dashdot" says how
    steps: bool = False  # drawn as a staircase that keeps y until the next x, as a histogram or an ROC curve is
    fill: bool = False  # filled down to 0
    markers: bool = False  # points on it
    in_legend: bool = True  # named in the legend
    wide: bool = False  # drawn wider than the others


@dataclass(frozen=True, eq=False)
class Bars:
    """One bar for each name or place."""

    name: str  # in the legend and as the CSV's column
    x: np.ndarray | Sequence[str]  # str or numbers (N,)
    y: np.ndarray  # (N,)
    colour: str | Sequence[str]  # one, or one for each bar
    # whether the names are steps of a scale, so that some may be left out where there is no room
    in_steps: bool = False
    lying: bool = False  # whether the bars lie, each with its whole name at the left: for many or long names


@dataclass(frozen=True, eq=False)
class Points:
    """Points without a line."""

    name: str  # in the legend and as the CSV's series
    x: np.ndarray  # (N,)
    y: np.ndarray  # (N,)
    colour: str  # of their faces
    size_px: int = 6  # across, on the page
    ringed: bool = False  # with an edge in the colour of text, so that they stand out
    symbol: Literal["circle", "star"] = "circle"
    texts: Sequence[str] = ()  # shown when the mouse is on one, str (N,); none for ""


@dataclass(frozen=True, eq=False)
class Heat:
    """A table of colours with a number in each cell."""

    name: str  # what the numbers are
    x: Sequence[str]  # names of the columns
    y: Sequence[str]  # names of the rows
    z: np.ndarray  # float (rows, columns); NaN is an empty cell
    number: str = ".1f"  # how a number is written, as in ".1f"
    # whether the numbers are differences: 0 is pale, positive and negative have a colour each
    signed: bool = False
    from_top: bool = False  # whether the first row is the top one
    framed: tuple[int, int] | None = None  # row and column of a cell with a frame around it

    @property
    def limit(self) -> float:
        """The largest number without its sign, 1 where all are 0."""
        sizes = np.abs(self.z[np.isfinite(self.z)])
        return float(sizes.max(initial=0.0)) or 1.0


@dataclass(frozen=True)
class Mark:
    """A straight line across the chart, in the colour of text."""

    at: float
    text: str = ""
    upright: bool = True  # on the x axis; else on the y axis
