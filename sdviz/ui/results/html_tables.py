"""Tables of Results as HTML, the same on the page and in the report."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from sdviz.ui.assets import style
from sdviz.ui.theme import ROLE_NAMES

# a short line's dashes from the left, as plotly and matplotlib draw them
_LINES = {
    "solid": "on 0 28px",
    "dash": "on 0 8px,off 8px 11px",
    "dot": "on 0 3px,off 3px 6px",
    "dashdot": "on 0 8px,off 8px 10px,on 10px 12px,off 12px 14px",
}
# a number, with the mark of the best one: it stays on one line
_NUMBER = re.compile(r"(▲ )?[+-]?[\d.,]+")


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    small: str = ""  # below it, smaller
    colour: str = ""  # of a small square before the text; "" for none
    line: str = ""  # how a line in the place of the square is drawn, a key of `_LINES`; "" for the square


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    cells: Sequence[Cell | str]  # from left to right; a plain text is a cell of its own
    kind: str = ""  # "" for a line of numbers, "group" for a heading of one cell, "strong" for a mean


def table_style() -> str:
    """The rules of these tables as a `<style>` element."""
    return style(__name__)


def show_table(table: str, wide: bool = False) -> None:
    """Puts a table into the page; `wide` makes it as wide as the page, as a button above it is."""
    st.html(table_style() + (f'<div class="wideresults">{table}</div>' if wide else table))


def boxed(table: str) -> str:
    """A table in a box that scrolls sideways by itself where it is wider than the page."""
    return f'<div class="resultbox" tabindex="0">{table}</div>'


def table_html(header: Sequence[Cell | str], rows: Sequence[Row], text: int = 1) -> str:
    """A table. `text`: how many columns from the left hold words; the others stand at the right."""
    top = "".join(f"<th{_kind(i, text)}>{_cell(name, breaks=True)}</th>" for i, name in enumerate(header))
    body = []
    for row in rows:
        if row.kind == "group":
            title = _cell(row.cells[0])
            body.append(f'<tr class="group"><td colspan="{len(header)}">{title}</td></tr>')
            continue
        cells = "".join(f"<td{_kind(i, text)}>{_cell(cell)}</td>" for i, cell in enumerate(row.cells))
        kind = ' class="strong"' if row.kind == "strong" else ""
        body.append(f"<tr{kind}>{cells}</tr>")
    lines = "".join(body)
    return boxed(f'<table class="resulttable"><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>')


def _kind(i: int, text: int) -> str:
    return ' class="text"' if i < text else ""


def _cell(cell: Cell | str, breaks: bool = False) -> str:
    """The HTML of a cell; with `breaks` or a colour a line may end within a name."""
    if isinstance(cell, str):
        cell = Cell(cell)
    text = html.escape(cell.text)
    if breaks or cell.colour:
        text = text.replace("_", "_<wbr/>").replace(":", ":<wbr/>")
    elif _NUMBER.fullmatch(cell.text):
        text = f'<span class="whole">{text}</span>'
    colour = html.escape(cell.colour)
    mark = ""
    if cell.line:
        stops = _LINES[cell.line].replace("on", colour).replace("off", "transparent")
        mark = f'<i class="line" style="background:repeating-linear-gradient(90deg,{stops})"></i>'
    elif cell.colour:
        mark = f'<i style="background:{colour}"></i>'
    small = f"<small>{html.escape(cell.small)}</small>" if cell.small else ""
    return f"{mark}{text}{small}"


def short_role(role: str) -> str:
    """The short name of a role."""
    return "SD outliers" if role == "sd" else ROLE_NAMES[role]


def shares(*values: float | None) -> list[float | None]:
    """Shares of 0..1 in %, for a file; None stays."""
    return [None if value is None else 100 * value for value in values]


def points(value: float | None, sign: bool = False) -> str:
    """A share of 0..1, or a difference of two, in points of 100; "" for None."""
    return "" if value is None else format(100 * value, "+.2f" if sign else ".2f")


def between(interval: tuple[float, float] | None, sign: bool = False) -> str:
    """An interval of shares as "97.1 to 98.2" in %, "" for None."""
    return "" if interval is None else f"{points(interval[0], sign)} to {points(interval[1], sign)}"
