"""Pictures for the hover card of Embeddings; outliers that no file keeps are made in the background."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sdviz.analysis.pictures import Way
from sdviz.analysis.tables import OUTLIERS
from sdviz.ui.cache.background import DEVICE_LOCK, Task, start
from sdviz.ui.cache.kept import kept, sets_here
from sdviz.ui.components.picture_sheets import TILES_A_SHEET, picture_sheet
from sdviz.ui.embeddings.state import Known

# outliers to make again at most: seconds on two CPU cores
MOST_MADE = 400
_MADE_AT_ONCE = 8
# other pages come first: nobody waits for all of these pictures
_BEGIN_AFTER_SEC, _REST_SHARE = 4.0, 1.0


@dataclass(frozen=True)
class Lacking:
    """Points without a picture."""

    rows: tuple[int, ...]
    are_coming: bool  # whether they are being made
    missing: tuple[str, ...] = ()  # why, as `Pictures.missing`
    ways: tuple[Way, ...] = ()


def lacking_in_all(parts: Sequence[Lacking], are_coming: bool) -> Lacking:
    """The points without a picture in several sheets."""
    return Lacking(
        tuple(row for one in parts for row in one.rows),
        are_coming,
        tuple(dict.fromkeys(line for one in parts for line in one.missing)),
        tuple(dict.fromkeys(line for one in parts for line in one.ways)),
    )


def name_of_pictures(known: Known) -> str:
    """A name for the pictures of these points. It changes when a set comes to this machine or leaves it."""
    ids, here = (hashlib.sha256(s.encode()).hexdigest() for s in ("\n".join(known.points.ids), sets_here()))
    return f"{known.bundle.hash[:12]}-{ids[:16]}-{here[:8]}"


def _make(known: Known, ids: list[str], task: Task[None]) -> None:
    task.pause(_BEGIN_AFTER_SEC)
    for first in range(0, len(ids), _MADE_AT_ONCE):
        task.report(first / len(ids))
        with DEVICE_LOCK:  # a few at a time: others want the device as well
            started = time.monotonic()
            known.library.show(ids[first : first + _MADE_AT_ONCE])
            spent = time.monotonic() - started
        task.pause(_REST_SHARE * spent)


@kept("outliers of points")
def outliers_made(known: Known, name: str) -> Task[None] | None:
    """Makes the outliers that the bundle keeps no picture of; None where there are none, or too many."""
    p = known.points
    wanted = [one for one in p.ids[p.sets == OUTLIERS].tolist() if not _is_kept(known, one)]
    if not wanted or len(wanted) > MOST_MADE:
        return None
    return start("outliers of points", partial(_make, known, wanted), known.bundle.hash)


@kept("picture sheets")
def sheet_of(known: Known, name: str, number: int, is_made: bool) -> tuple[bytes, Lacking]:
    """A sheet of pictures, JPEG, and the points without one; `is_made` once no outliers are being made."""
    first = number * TILES_A_SHEET
    p = known.points
    ids = p.ids[first : first + TILES_A_SHEET]
    of_outliers = p.sets[first : first + TILES_A_SHEET] == OUTLIERS
    made = outliers_made(known, name)
    may_ask = is_made and made is not None
    there = np.array(
        [not out or may_ask or _is_kept(known, one) for one, out in zip(ids.tolist(), of_outliers, strict=True)]
    )
    size = known.bundle.manifest.image_size
    images = np.full((len(ids), size, size, 3), 127, np.uint8)
    found, missing, ways = np.zeros(len(ids), bool), tuple[str, ...](), tuple[Way, ...]()
    if there.any():
        pictures = known.library.show(ids[there])
        images[there], found[there] = pictures.images, pictures.found
        missing, ways = pictures.missing, pictures.ways
    rows = tuple((first + np.flatnonzero(~found)).tolist())
    return picture_sheet(images), Lacking(rows, False, missing, ways)


def _is_kept(known: Known, one: str) -> bool:
    """Whether an outlier's picture is in the bundle."""
    row = known.library.outlier_row(one)
    return row is None or known.evidence.outliers.png(row) is not None
