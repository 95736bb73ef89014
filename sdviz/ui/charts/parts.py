"""The parts of a chart: lines, bars, points, heat maps and marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Dash: TypeAlias = Literal["dash", "dot", "dashdot"]


@dataclass(frozen=True, eq=False)
class Line:
    """A line through points."""

    name: str  # in the legend and the CSV
    x: np.ndarray | Sequence[float]  # (N,)
    y: np.ndarray | Sequence[float]  # (N,)
    colour: str
    dash: bool | Dash = False  # True is "dash"
    steps: bool = False  # y stays the same until the next x, as in a histogram or an ROC curve
    fill: bool = False  # filled down to 0
    markers: bool = False  # with a dot at each point
    in_legend: bool = True
    wide: bool = False
    on_right: bool = False  # by the second y axis


@dataclass(frozen=True, eq=False)
class Bars:
    """One bar for each name or number."""

    name: str  # in the legend and the CSV
    x: np.ndarray | Sequence[str]  # str or numbers (N,)
    y: np.ndarray  # (N,)
    colour: str | Sequence[str]  # one, or one for each bar
    in_steps: bool = False  # names are steps of a scale: some are left out if there is no room
    lying: bool = False  # horizontal bars, each with its whole name at the left: for many or long names


@dataclass(frozen=True, eq=False)
class Dots:
    """Dots, not joined by a line."""

    name: str  # in the legend and the CSV
    x: np.ndarray  # (N,)
    y: np.ndarray  # (N,)
    colour: str
    size_px: int = 6  # diameter on the page
    ringed: bool = False  # opaque, with an edge in the colour of text
    symbol: Literal["circle", "star"] = "circle"
    texts: Sequence[str] = ()  # shown under the mouse, str (N,)


@dataclass(frozen=True, eq=False)
class Heat:
    """A heat map with a number in each cell."""

    name: str  # of the numbers
    x: Sequence[str]  # names of the columns
    y: Sequence[str]  # names of the rows
    z: np.ndarray  # float (rows, columns); NaN is an empty cell
    number: str = ".1f"  # format of a number
    signed: bool = False  # 0 is pale, positive and negative numbers have a colour each
    from_top: bool = False  # the first row is at the top
    framed: tuple[int, int] | None = None  # row and column of a cell with a frame

    @property
    def limit(self) -> float:
        """The largest absolute number, 1 if all are 0."""
        sizes = np.abs(self.z[np.isfinite(self.z)])
        return float(sizes.max(initial=0.0)) or 1.0


@dataclass(frozen=True)
class Mark:
    """A straight line from edge to edge, in the colour of text."""

    at: float
    text: str = ""
    upright: bool = True  # vertical, at an x; else horizontal, at a y
