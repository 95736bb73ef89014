"""A scatter plot of images in two or three dimensions, with a frame for each epoch of training.

WebGL draws the points, or a 2-D canvas in a browser without it, in one panel or in several that share the view.
The picture under the mouse comes from the sheets that `picture_sheets` has sent, so hovering needs no server. A
click reports an id; a lasso or a box reports its region, and the server finds the points in it.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sdviz.ui.assets import component
from sdviz.ui.components.picture_sheets import TILES_A_ROW, TILES_A_SHEET


@dataclass(frozen=True)
class Group:
    """An entry of the legend. A click hides or shows its points."""

    name: str
    colour: str
    count: int


@dataclass(frozen=True)
class Ramp:
    """The legend of numbers."""

    title: str
    low: str  # the smallest, as text
    high: str  # the largest, as text
    colours: tuple[str, ...]  # from low to high, "#rrggbb"


@dataclass(frozen=True)
class PanelTitle:
    """The title of a panel, shown in its corner."""

    name: str
    note: str  # after the name, smaller


@dataclass(frozen=True, eq=False)
class Colouring:
    """The colours of all points and their meaning."""

    name: str
    rgb: np.ndarray  # uint8 (N,3)
    group: np.ndarray  # int (N,), rows of `groups`
    groups: tuple[Group, ...]  # the legend
    ramp: Ramp | None = None  # for numbers


def scatter(
    points: np.ndarray,
    *,
    key: str,
    layout: str,
    frames: Sequence[PanelTitle],
    panels: Sequence[int],
    ids: np.ndarray,
    texts: Sequence[str],
    colouring: Colouring,
    edge: np.ndarray,
    sheets: str,
    lacking: Sequence[int],
    are_coming: bool,
    marked: int,
    chosen: Sequence[int],
    height: int,
    on_select: Callable[[], None],
) -> str | None:
    """Shows the plot.

    Args:
        points: float32 (F,N,2) or (F,N,3).
        layout: A name of these points. While it is the same, the person's view is kept.
        frames: F names.
        panels: Frames to show side by side; with fewer than two, one frame and a slider.
        ids: str (N,).
        texts: N texts of the hover card, of one or more lines.
        edge: uint8 (N,3), the border colour of a hover card's picture.
        sheets: The name that `send_pictures` uses for the pictures.
        lacking: Rows without a picture.
        are_coming: Whether those pictures are being made.
        marked: A row with a ring around it, -1 for none.
        chosen: Selected rows; the others fade.
        height: Height of the panels, px.
        on_select: Called before the rerun of a selection; `st.session_state[key].selected` holds `polygon`,
            `onto` (the page's two axes), `frame`, `hidden` groups and `layout`, or None when it is cleared.

    Returns:
        The id clicked just now, else None.
    """
    data = {
        "points": _packed(points.astype("<f4")),
        "dims": int(points.shape[-1]),
        "layout": layout,
        "frames": [asdict(one) for one in frames],
        "panels": list(panels),
        "ids": ids.tolist(),
        "texts": list(texts),
        "rgb": _packed(colouring.rgb.astype(np.uint8)),
        "edge": _packed(edge.astype(np.uint8)),
        "group": _packed(colouring.group.astype("<u2")),
        "groups": [asdict(one) for one in colouring.groups],
        "ramp": asdict(colouring.ramp) if colouring.ramp else None,
        "colouring": colouring.name,
        "sheets": {"name": sheets, "each": TILES_A_SHEET, "columns": TILES_A_ROW},
        "lacking": list(lacking),
        "coming": are_coming,
        "marked": marked,
        "chosen": list(chosen),
        "height": height,
    }
    plot = component(__name__)
    return plot(key=key, data=data, on_clicked_change=lambda: None, on_selected_change=on_select).clicked


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
