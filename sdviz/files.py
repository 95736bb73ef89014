"""Files that are there whole or not at all, and the version of the folders that sdviz makes of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

# of bundles and runs; a folder of another version is refused in one line
FORMAT_VERSION = 2


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path to write to; it takes the place of `path` at the end, or is removed after an error.

    Another process sees the old file or the new one. Writers at the same time do not meet: each has a file of
    its own, and the last one stays.

    Args:
        path: A file, in a folder that is there.

    Raises:
        OSError: As the system says.
    """
    # the ending stays last: libraries choose a format by it
    partial = path.with_name(f".{path.stem}.{uuid4().hex}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; it takes the place of `path` at the end, or is removed after an error.

    The folder is `path` with ".partial" after its name; one that a killed writer left is emptied.

    Args:
        path: A folder, or where one shall be; no other process writes it.
    """
    partial, old = (path.with_name(path.name + ending) for ending in (".partial", ".old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Puts a file in place whole; text is UTF-8."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def other_format(what: Path, version: object, command: str) -> str:
    """Says in one line that a file is of another format version, and which command makes it again."""
    age = "an older" if isinstance(version, int) and version < FORMAT_VERSION else "another"
    its_format = "no format version" if version is None else f"format {version}"
    return (
        f"{what}: made by {age} sdviz ({its_format}, this one reads format {FORMAT_VERSION}); make it again"
        f" with: {command}"
    )


def leftovers(folder: Path) -> list[Path]:
    """What killed writers have left half written, in a folder and below it."""
    return [path for path in folder.rglob(".*.partial*") if path.is_file()]


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers have left half written, in a folder and below it.

    Args:
        folder: One that nobody writes to at the moment.
    """
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
