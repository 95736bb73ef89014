"""Atomic writing of files and folders, and the format version of bundles and runs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

# of bundles and runs; a folder of another version is refused in one line
FORMAT_VERSION = 2
# limits of JSON that is read: a report of many methods has some 100 kB and ten levels
MAX_JSON_BYTES = 16_000_000
MAX_DEPTH = 50
MAX_WHOLE = 2**63


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file to write, which replaces `path` at the end, or is removed after an error.

    Other processes see the old file or the new one. Of several writers at a time, the last one wins.

    Args:
        path: A file in an existing folder.
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
    """Yields an empty folder to fill, which replaces `path` at the end, or is removed after an error.

    Args:
        path: A folder that need not exist; no other process may write it. The new one is `path` with ".partial"
            after its name.
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
    """Writes a file whole or not at all; text is UTF-8."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401
    """Parses JSON that others may have written.

    Raises:
        ValueError: No JSON, above `MAX_JSON_BYTES`, nested deeper than `MAX_DEPTH`, with a whole number beyond
            64 bits, or with half of a surrogate pair, which no file or page takes.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it has more than {MAX_JSON_BYTES:,} bytes")
    try:
        tree = json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, depth = [tree], 0
    while level := [value for node in level if isinstance(node, dict | list) for value in _values(node)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
    escape = "\\u" if isinstance(text, str) else b"\\u"
    if not text.isascii() or escape in text:  # type: ignore[operator]
        try:
            json.dumps(tree, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it has half of a surrogate pair, which is no text") from error
    return tree


def _values(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _whole_number(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= MAX_WHOLE:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def read_json(path: Path) -> Any:  # noqa: ANN401
    """Reads a JSON file. Raises OSError: it cannot be read; ValueError: as `parse_json`."""
    with path.open("rb") as stream:
        return parse_json(stream.read(MAX_JSON_BYTES + 1))


def other_format(what: Path, version: object, command: str) -> str:
    """The one-line error for a file of another format version, with the command that makes it again."""
    age = "an older" if isinstance(version, int) and version < FORMAT_VERSION else "another"
    its_format = "no format version" if version is None else f"format {version}"
    return (
        f"{what}: made by {age} sdviz ({its_format}, this one reads format {FORMAT_VERSION}); make it again"
        f" with: {command}"
    )


def leftovers(folder: Path) -> list[Path]:
    """Files that killed writers left half written, in a folder and below it."""
    return [path for path in folder.rglob(".*.partial*") if path.is_file()]


def remove_leftovers(folder: Path) -> None:
    """Removes the `leftovers` of a folder that nobody writes to at the moment."""
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
