"""A grid of pictures to click; each arrives at its own size and the browser enlarges it pixel by pixel."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sdviz.ui.assets import component


@dataclass(frozen=True)
class Label:
    """A text with a smaller second line."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Cell:
    """One picture of a grid."""

    src: str  # `data:` address of the picture; "" leaves its place grey, or empty where `alt` is "" as well
    alt: str  # what it shows, for screen readers and as a tooltip
    colour: str  # of its border
    text: str = ""  # under the picture
    small: str = ""  # under the text, smaller
    id: str = ""  # reported when clicked; "" is not clickable
    chosen: bool = False  # drawn with a second, strong border


def picture_grid(
    cells: list[Cell],
    columns: int,
    *,
    key: str,
    size_px: int = 128,
    row_names: list[Label] | None = None,
    column_names: list[Label] | None = None,
    head_px: int = 96,
    shrink: bool = False,
    on_click: Callable[[], None] | None = None,
) -> str | None:
    """Shows pictures in rows and columns; columns that the window has no room for go below the first ones.

    Args:
        cells: Row by row.
        size_px: Edge of a picture on the screen; a multiple of its own pixels keeps it crisp.
        row_names: At the left of each row.
        column_names: Above each column.
        head_px: Width of the row names.
        shrink: In a narrow window, pictures get smaller by 32 px at a time before columns go below.
        on_click: Called before the rerun that a click makes; the id is in `st.session_state[key].clicked`.

    Returns:
        The id of the cell clicked just now, else None.
    """
    data: dict[str, Any] = {
        "cells": [asdict(c) for c in cells],
        "columns": columns,
        "size_px": size_px,
        "row_names": [asdict(w) for w in row_names or []],
        "column_names": [asdict(w) for w in column_names or []],
        "head_px": head_px,
        "shrink": shrink,
    }
    return component(__name__)(key=key, data=data, on_clicked_change=on_click or (lambda: None)).clicked
