"""The command check: what is in a set of images, before a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..text import short_line
from .common import Json, Mistake, app

if TYPE_CHECKING:
    from ..data.check import Check

NAMED = 8  # of a long list


@app.command()
def check(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Images: NAME, NAME:SPLIT (shapes:test) or KIND:PATH."),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC", help="An OOD set to compare it with; repeatable."),
    ] = None,
    json_: Json = False,
) -> None:
    """Says what a run would read of a set of images, what it would leave out, and which pictures repeat others.

    Exits with 0 where a run would start, and with 2 where it would not.
    """
    from ..data.check import check_source

    found = check_source(source, against or [])
    if json_:
        typer.echo(json.dumps(found.as_json()))
    else:
        for line in told(found):
            typer.echo(line)
    if found.refusals:
        raise Mistake("; ".join(found.refusals))


def told(check: Check) -> list[str]:
    """What was found, in lines that fit on one screen."""
    found = check.found
    rows = {
        "pictures": f"{check.pictures:,}" + (f" of split {check.split}" if len(check.splits) > 1 else ""),
        "classes": _counts(check.classes) or "none",
        "splits": _counts(check.splits) * (len(check.splits) > 1),
        "sizes": _counts(found.sizes),
        "modes": _counts(found.modes),
        "values": found.value_range,
        "passed over": _counts(found.passed_over),
        "unreadable": _some([short_line(one) for one in found.unreadable]),
        "exact copies": f"{len(check.exact):,}",
        "near copies": f"{len(check.near):,}",
    }
    lines = [check.name] + [f"  {key:<13} {text}" for key, text in rows.items() if text] * bool(check.pictures)
    for name, other in check.others.items():
        lines.append(f"  {'also in it':<13} {len(other.exact):,} of {other.pictures:,} of {name}")
    if found.offered:
        lines.append(f"  {'OOD sets':<13} {_some(found.offered)}")
    return [*lines, *(f"warning: {one}" for one in check.warnings)]


def _counts(counts: Mapping[str, int]) -> str:
    """Names with their counts, the most frequent first."""
    by_count = sorted(counts.items(), key=lambda item: -item[1])
    return _some([f"{n:,} {short_line(name)}" for name, n in by_count])


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
