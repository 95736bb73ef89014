"""Writes tables as Markdown, and means with their standard deviation."""

from collections.abc import Iterable, Sequence

import numpy as np

# header and rows of a table
Rows = tuple[list[str], list[list[str]]]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table as Markdown; a | in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def spread_text(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Formats the mean ± standard deviation (n - 1) of several values; one value alone; none as ""."""
    if not values:
        return ""
    mean = f"{np.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
