"""Pictures of a bundle's images by id."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sdviz.analysis import Evidence, PictureLibrary, Pictures
from sdviz.ui.cache import DEVICE_LOCK


def show_pictures(library: PictureLibrary, evidence: Evidence, ids: list[str]) -> Pictures:
    """Pictures by id; outliers that have to be made again wait for the device."""
    rows = [row for row in map(library.outlier_row, ids) if row is not None]
    to_make = any(evidence.outliers.png(row) is None for row in rows)
    lock: AbstractContextManager[object] = DEVICE_LOCK if to_make else nullcontext()
    with lock:
        return library.show(ids)
