"""What the command line answers."""

from __future__ import annotations

from pathlib import Path

from typer.testing import Result

from sdviz.table_files import read_csv


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
    return read_csv(folder / "manifest.csv").records()
