"""The command bench, which runs the benchmarks in a checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import EXIT_FAILED, app, checking, fail

BENCH = Path(__file__).resolve().parents[2] / "bench"
# the cheap ones first; bench/shapes_quality.py measures no speed and takes an hour
SCRIPTS = ("data", "knn", "sampling", "outliers", "training", "pages")


@app.command()
def bench(
    name: Annotated[
        list[str] | None, typer.Argument(help=f"The benchmarks to run, by default all: {', '.join(SCRIPTS)}.")
    ] = None,
) -> None:
    """Measures the speed on this machine against named peers; prints Markdown tables."""
    with checking():
        unknown = [one for one in name or [] if one not in SCRIPTS]
        if unknown:
            raise ValueError(f"no bench {unknown[0]!r}; there are {', '.join(SCRIPTS)}")
        if not BENCH.is_dir():
            raise ValueError(f"the scripts are not installed with the package: run it in a checkout ({BENCH})")
    missed = []
    for one in name or SCRIPTS:
        typer.echo(f"\n## bench/{one}.py\n")
        if subprocess.run([sys.executable, str(BENCH / f"{one}.py")]).returncode:
            missed.append(one)
    if missed:
        fail(f"a target was missed, or a benchmark failed: {', '.join(missed)}", EXIT_FAILED)
