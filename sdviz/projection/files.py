"""Reads and writes files of layouts."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ..files import replacing
from .layouts import Layouts

SUFFIX = ".layout.npz"


def read_layouts(path: Path) -> Layouts | None:
    """Reads layouts from a file; None if it is missing, cut, or not a file of layouts."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = Layouts(file["points"], file["trust"], file["explained"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = found.points.ndim == 3 and len(found.points) == len(found.trust) == len(found.explained)
    return found if fits else None


def write_layouts(path: Path, layouts: Layouts) -> None:
    """Writes layouts atomically and makes the folder; OSError if the disk is full or read-only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez(stream, points=layouts.points, trust=layouts.trust, explained=layouts.explained)
