"""Points on a page with their pictures, followed over the epochs of training.

WebGL draws the points (a 2-D canvas where the browser has none), in two dimensions or three, in one panel or
several that share the view. The picture under the mouse comes out of the sheets that `picture_sheets` has sent,
so hovering asks the server for nothing. A click reports an id, a lasso or a box the region that was drawn: the
server itself finds the points inside it.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sdviz.ui.assets import component
from sdviz.ui.components.picture_sheets import TILES_A_ROW, TILES_A_SHEET


@dataclass(frozen=True)
class Group:
    """One entry of the legend; a click hides and shows its points."""

    name: str
    colour: str
    count: int


@dataclass(frozen=True)
class Ramp:
    """A legend of numbers."""

    title: str  # what they are
    low: str  # the smallest, as text
    high: str  # the largest, as text
    colours: tuple[str, ...]  # from low to high, "#rrggbb"


@dataclass(frozen=True)
class FrameName:
    """What a panel says in its corner."""

    name: str
    note: str


@dataclass(frozen=True, eq=False)
class Colouring:
    """The colours of all points, and what they mean."""

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
    frames: Sequence[FrameName],
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
    """Shows the points.

    Args:
        points: float32 (F,N,2) or (F,N,3).
        layout: Names these points: the view stays as the person has it while the name is the same.
        frames: F names.
        panels: Frames side by side; one or none shows one frame with a slider.
        ids: str (N,).
        texts: N texts of the hover card, lines parted by newlines.
        edge: uint8 (N,3), of the border of a hover card's picture.
        sheets: Name under which `send_pictures` brings the pictures.
        lacking: Rows without a picture.
        are_coming: Whether those pictures are being made.
        marked: A row that is ringed, -1 for none.
        chosen: Rows that are selected; others fade.
        height: Of the panels, px.
        on_select: Called before the rerun of a selection; `st.session_state[key].selected` holds `polygon`,
            `onto` (the page's two axes), `frame`, `hidden` groups and `layout`, or None where it was cleared.

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
