"""A user's own folder of pictures: one sub-folder for each class, or flat."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from ..decode import SUFFIXES, ImageStack
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, OnError, chosen_rows

SPLIT = "all"


def load(path: Path, name: str, limit: int | None, seed: int, size_px: int, on_error: OnError) -> ImageSet:
    """Reads the pictures of a folder, sorted by path; hidden files and other file types are passed over.

    Where a sub-folder has pictures, at any depth, the sub-folders are the classes, empty ones included (so
    that the labels of two folders agree), and pictures beside them are unlabelled. Else the folder is
    flat and has no labels.

    The id is `folder/<folder's name>/<path inside>@<12 hex digits of the file's SHA-256>`: two folders
    of one name share an id only where path and picture agree.

    Args:
        path: The folder.
        name: The set's name, as the user gave it.
        limit: At most so many pictures, see `sdviz.data.load`.
        seed: Which ones.
        size_px: Height and width of the result.
        on_error: What to do about a file that cannot be decoded.

    Raises:
        DataError: No such folder, no picture in it, or a bad one.
    """
    files = _checked_files(path, name)
    names = class_names(path) if any(len(parts) > 1 for parts in files) else ()
    label_of = {one: label for label, one in enumerate(names)}

    rows = chosen_rows(len(files), limit, seed)
    stack = ImageStack(len(rows), size_px)
    labels = np.full(len(rows), UNKNOWN_LABEL, np.int64)
    ids: list[str] = []
    prefix = f"folder/{Path(os.path.abspath(path)).name}"  # not resolved: a link's target differs by machine
    for position, row in enumerate(rows.tolist()):
        inside = "/".join(files[row])
        try:
            blob = path.joinpath(*files[row]).read_bytes()
        except OSError as error:
            stack.refuse(inside, f"cannot be read: {error.strerror}")
            ids.append("")
            continue
        stack.add(position, inside, blob)
        ids.append(f"{prefix}/{inside}@{hashlib.sha256(blob).hexdigest()[:12]}")
        if len(files[row]) > 1:
            labels[position] = label_of[files[row][0]]
    images, good = stack.finish(name, on_error)
    known = labels[good], np.array(ids, dtype=str)[good], names
    return ImageSet(name, SPLIT, images, *known, stack.jpeg_share)


def class_names(path: Path) -> tuple[str, ...]:
    """The classes of a folder: its sub-folders, sorted."""
    return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not _hidden(entry.name)))


def count(path: Path, name: str) -> int:
    """How many pictures there are.

    Raises:
        DataError: No such folder, or no picture in it.
    """
    return len(_checked_files(path, name))


def holds_pictures(path: Path) -> bool:
    """Whether `load` finds a picture in a folder."""
    return bool(_picture_files(path))


def _checked_files(path: Path, name: str) -> list[tuple[str, ...]]:
    if not path.is_dir():
        raise DataError(f"{name}: {'is a file, not a folder' if path.exists() else 'no such folder'}")
    files = _picture_files(path)
    if not files:
        raise DataError(f"{name}: no pictures in this folder ({', '.join(sorted(SUFFIXES))})")
    return files


def _picture_files(path: Path) -> list[tuple[str, ...]]:
    """The path parts, below `path`, of every picture file, sorted: the same order on every system."""
    found: list[tuple[str, ...]] = []
    for folder, folders, files in os.walk(path, followlinks=True):
        here = Path(folder).resolve()
        # a link to a folder that it lies in would be walked for ever
        folders[:] = [
            one for one in folders if not _hidden(one) and not here.is_relative_to((here / one).resolve())
        ]
        parts = Path(folder).relative_to(path).parts
        found += [(*parts, one) for one in files if not _hidden(one) and Path(one).suffix.lower() in SUFFIXES]
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
