"""Tables of Results as HTML, the same on the page and in the report."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from sdviz.ui.assets import style
from sdviz.ui.theme import ROLE_NAMES

# a number, with the mark of the best one: it stays on one line
_NUMBER = re.compile(r"(▲ )?[+-]?[\d.,]+")


@dataclass(frozen=True)
class TableCell:
    """A cell of a table."""

    text: str
    small: str = ""  # below it, smaller
    colour: str = ""  # of a small square before the text; "" for none
    line: str = ""  # how a line instead of the square is drawn: "solid", "dash", "dot" or "dashdot"
    kind: str = ""  # "text" for words in a column of numbers, "ours" for our figure beside the paper's


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    cells: Sequence[TableCell | str]  # from left to right
    kind: str = ""  # "" for a line of numbers, "group" for a heading of one cell, "strong" for a mean


def table_style() -> str:
    """The rules of these tables as a `<style>` element."""
    return style(__name__)


def show_table(table: str, wide: bool = False) -> None:
    """Puts a table into the page; `wide` makes it as wide as the page."""
    st.html(table_style() + (f'<div class="wideresults">{table}</div>' if wide else table))


def table_html(
    header: Sequence[TableCell | str], rows: Sequence[Row], text: int = 1, over: Sequence[str] = ()
) -> str:
    """A table in a box that scrolls sideways where the table is wider than the page.

    Args:
        header: The names of the columns; none for a table without them.
        rows: Its lines.
        text: How many columns from the left hold words; the others are set to the right.
        over: Names above the header, each over two columns; the first column has none.
    """
    spans = "".join(f'<th class="span" colspan="2">{html.escape(name)}</th>' for name in over)
    top = f"<tr><th></th>{spans}</tr>" if over else ""
    if header:
        top += f"<tr>{''.join(_cell('th', i, cell, text) for i, cell in enumerate(header))}</tr>"
    body = []
    for row in rows:
        if row.kind == "group":
            body.append(f'<tr class="group"><td colspan="{len(header)}">{_content(row.cells[0])}</td></tr>')
        else:
            cells = "".join(_cell("td", i, cell, text) for i, cell in enumerate(row.cells))
            body.append(f"<tr{_class(row.kind)}>{cells}</tr>")
    table = f'<table class="resulttable"><thead>{top}</thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="resultbox" tabindex="0">{table}</div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _cell(tag: str, i: int, cell: TableCell | str, text: int) -> str:
    kind = "text" if i < text else cell.kind if isinstance(cell, TableCell) else ""
    return f"<{tag}{_class(kind)}>{_content(cell, breaks=tag == 'th')}</{tag}>"


def _content(cell: TableCell | str, breaks: bool = False) -> str:
    """The HTML in a cell; with `breaks` or a colour a line may end within a name."""
    if isinstance(cell, str):
        cell = TableCell(cell)
    text = html.escape(cell.text)
    if breaks or cell.colour:
        text = text.replace("_", "_<wbr/>").replace(":", ":<wbr/>")
    elif _NUMBER.fullmatch(cell.text):
        text = f'<span class="whole">{text}</span>'
    line = _class(cell.line and f"line {cell.line}")
    mark = f'<i{line} style="--mark:{html.escape(cell.colour)}"></i>' if cell.colour else ""
    small = f"<small>{html.escape(cell.small)}</small>" if cell.small else ""
    return f"{mark}{text}{small}"


def short_role(role: str) -> str:
    """The short name of a role."""
    return "SD outliers" if role == "sd" else ROLE_NAMES[role]


def shares(*values: float | None) -> list[float | None]:
    """Shares of 0..1 in %; None stays."""
    return [None if value is None else 100 * value for value in values]


def points(value: float | None, sign: bool = False) -> str:
    """A share of 0..1, or a difference of two, times 100 as text; "" for None."""
    return "" if value is None else format(100 * value, "+.2f" if sign else ".2f")


def between(interval: tuple[float, float] | None, sign: bool = False) -> str:
    """An interval of shares in %, as "97.10 to 98.20"; "" for None."""
    return "" if interval is None else f"{points(interval[0], sign)} to {points(interval[1], sign)}"
