"""Writes tables as Markdown or CSV, and means with their standard deviation."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..text import one_line

# header and rows of a table
Rows = tuple[list[str], list[list[str]]]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Writes a table as Markdown; a | in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def csv_table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    provenance: Mapping[str, str],
    title: str = "",
    quote_texts: bool = False,
) -> str:
    """Writes a table as CSV below comment lines, which begin with #.

    Args:
        provenance: One comment line for each item.
        title: The first comment line, "" for none.
        quote_texts: Quotes every text, so that a # in it starts no comment for `pandas.read_csv(comment="#")`.
    """
    stream = io.StringIO(newline="")
    if title:
        stream.write(f"# {title}\n")
    for key, value in provenance.items():
        stream.write(f"# {one_line(key)}: {one_line(value)}\n")
    writer = csv.writer(
        stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if quote_texts else csv.QUOTE_MINIMAL
    )
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def spread_text(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Formats the mean ± standard deviation (n - 1) of several values; one value alone; none as ""."""
    if not values:
        return ""
    mean = f"{np.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
