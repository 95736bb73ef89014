"""Pictures for the hover card of Embeddings. Outliers that no file keeps are generated in the background."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sdviz.analysis.pictures import Way
from sdviz.ui.cache.background import DEVICE_LOCK, Task, start
from sdviz.ui.cache.kept import kept, sets_here
from sdviz.ui.components.picture_sheets import TILES_A_SHEET, picture_sheet
from sdviz.ui.embeddings.state import Known

# how many outliers are generated at most: in a minute or two on two CPU cores
MOST_GENERATED = 1_200
_GENERATED_AT_ONCE = 16
# the work of other pages comes first
_BEGIN_AFTER_SEC, _REST_SHARE = 4.0, 1.0


@dataclass(frozen=True)
class Lacking:
    """Points without a picture."""

    rows: tuple[int, ...]
    are_coming: bool  # whether their pictures are being generated
    missing: tuple[str, ...] = ()  # the reasons, as `Pictures.missing`
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
    """A name for the pictures of these points. It changes when an image set appears or disappears here."""
    ids, here = (hashlib.sha256(s.encode()).hexdigest() for s in ("\n".join(known.points.ids), sets_here()))
    return f"{known.bundle.hash[:12]}-{ids[:16]}-{here[:8]}"


def _generate(known: Known, ids: list[str], task: Task[None]) -> None:
    task.pause(_BEGIN_AFTER_SEC)
    for first in range(0, len(ids), _GENERATED_AT_ONCE):
        task.report(first / len(ids))
        with DEVICE_LOCK:  # a few at a time: other pages need the device too
            started = time.monotonic()
            known.library.show(ids[first : first + _GENERATED_AT_ONCE])
            spent = time.monotonic() - started
        task.pause(_REST_SHARE * spent)


@kept("outliers of points")
def generated_outliers(known: Known, name: str) -> Task[None] | None:
    """Starts generating the outliers that no file keeps; None where there are none, or too many."""
    wanted = [one for one in known.points.ids.tolist() if known.library.must_generate(one)]
    if not 0 < len(wanted) <= MOST_GENERATED:
        return None
    return start("outliers of points", partial(_generate, known, wanted), known.bundle.hash)


@kept("picture sheets")
def sheet_of(known: Known, name: str, number: int, is_made: bool) -> tuple[bytes, Lacking]:
    """Makes a sheet of pictures, JPEG, and finds its points without a picture.

    `is_made`: all outliers have been generated.
    """
    first = number * TILES_A_SHEET
    ids = known.points.ids[first : first + TILES_A_SHEET]
    # when the task is done, `show` tells why an outlier has no picture
    ask_for_all = is_made and generated_outliers(known, name) is not None
    wanted = np.array([ask_for_all or not known.library.must_generate(one) for one in ids.tolist()])
    size = known.bundle.manifest.image_size
    images = np.full((len(ids), size, size, 3), 127, np.uint8)
    pictures = known.library.show(ids[wanted])
    images[wanted] = pictures.images
    found = np.zeros(len(ids), bool)
    found[wanted] = pictures.found
    rows = tuple((first + np.flatnonzero(~found)).tolist())
    return picture_sheet(images), Lacking(rows, False, pictures.missing, pictures.ways)
