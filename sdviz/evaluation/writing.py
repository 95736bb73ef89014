"""Writes every table, as Markdown or CSV, and means with their spread."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown; a | in a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def csv_table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    provenance: Mapping[str, str],
    title: str = "",
    quote_texts: bool = False,
) -> str:
    """A table as CSV below lines that begin with #; `pandas.read_csv(comment="#")` skips those.

    Args:
        provenance: Where the numbers come from: a line each.
        title: The first line, "" for none.
        quote_texts: Puts every text in quotes, so that a # in one begins no comment.
    """
    stream = io.StringIO(newline="")
    if title:
        stream.write(f"# {title}\n")
    for key, value in provenance.items():
        stream.write(f"# {' '.join(key.split())}: {' '.join(value.split())}\n")
    writer = csv.writer(
        stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if quote_texts else csv.QUOTE_MINIMAL
    )
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def spread_text(values: Sequence[float], digits: int, sign: str = "") -> str:
    """The mean, and of several values ± their standard deviation (n - 1); "" for none."""
    if not values:
        return ""
    mean = f"{np.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
