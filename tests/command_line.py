"""What the command line answers."""

from __future__ import annotations

import csv
from pathlib import Path

from typer.testing import Result


def one_line_error(result: Result, code: int = 2) -> str:
    """The error of a command that failed with one line and nothing on stdout."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in result.stderr
    return lines[-1].removeprefix("error: ")


def manifest(folder: Path) -> list[dict[str, str]]:
    """The rows of the manifest that `generate` writes."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
