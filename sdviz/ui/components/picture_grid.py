"""A grid of pictures to click, sent at their own size and enlarged by the browser without blur."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sdviz.ui.assets import component
from sdviz.ui.pictures import crisp_px, side_of


@dataclass(frozen=True)
class Label:
    """A text with a smaller second line."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Cell:
    """One picture of a grid."""

    src: str  # `data:` address of the picture; with "" `alt` stands in its place
    alt: str  # for screen readers and as a tooltip
    colour: str  # of its border
    text: str = ""  # under the picture
    small: str = ""  # under the text, smaller
    id: str = ""  # reported when clicked; with "" it cannot be clicked
    chosen: bool = False  # with a second, strong border


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
    """Shows pictures in rows and columns. In a narrow window the last columns move below the first.

    Args:
        cells: Row by row.
        size_px: Size of a picture on the screen, raised to a multiple of its own side.
        row_names: At the left of each row.
        column_names: Above each column.
        head_px: Width of the row names.
        shrink: In a narrow window, first make the pictures smaller, to a lower multiple of their side.
        on_click: Called before the rerun that a click makes; the id is in `st.session_state[key].clicked`.

    Returns:
        The id of the cell clicked just now, else None.
    """
    side = next((side_of(cell.src) for cell in cells if cell.src), 32)
    data: dict[str, Any] = {
        "cells": [asdict(c) for c in cells],
        "columns": columns,
        "size_px": crisp_px(size_px, side),
        "side": side,
        "row_names": [asdict(w) for w in row_names or []],
        "column_names": [asdict(w) for w in column_names or []],
        "head_px": head_px,
        "shrink": shrink,
    }
    return component(__name__)(key=key, data=data, on_clicked_change=on_click or (lambda: None)).clicked
