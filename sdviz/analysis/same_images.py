"""Finds the images of a shuffled Parquet file in torchvision's files.

A Parquet file of a set may be shuffled, so that `cifar10/train/00012` and `cifar10/train/tv-00012` are
different images. A bundle that was made from such a file may say in `same_images.parquet` which is which: for
each id (column `id`, as the bundle's tables have it) the image's class (`label`, in torchvision's numbers) and
its place among the images of that class in the original order (`nth`, from 0). No image is in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .. import data
from ..bundle import Bundle
from ..data import DataError, Found, ImageSet
from ..data.decode import through_jpeg

SAME_IMAGES = "same_images.parquet"


def through_own_jpeg(bundle: Bundle, pictures: np.ndarray) -> np.ndarray:
    """Pictures as the detector saw them: through JPEG if the run did that to its outliers, else unchanged."""
    jpeg = ((bundle.manifest.config or {}).get("outliers") or {}).get("jpeg")
    return through_jpeg(pictures, jpeg["quality"], jpeg["subsampling"]) if jpeg and len(pictures) else pictures


def find_images(
    bundle: Bundle, ids: np.ndarray | Sequence[str], sources: Iterable[str] = (), pictures: bool = True
) -> Found:
    """Finds images as `data.look_up` does, then in torchvision's files if the bundle knows their order.

    Those files are lossless. If the bundle's outliers were JPEG-coded to resemble its images, the images found
    there are JPEG-coded as well; they are close to the file's own, not equal.

    Args:
        bundle: Whose tables have these ids.
        ids: str (N,).

    Returns:
        In the order of `ids`.
    """
    size = bundle.manifest.image_size
    found = data.look_up(ids, sources, size, pictures)
    path = bundle.parts.get(SAME_IMAGES)
    names = np.asarray(ids, str)
    if found.found.all() or path is None:
        return found
    place_of, lost = _places(str(path), bundle.hash), np.flatnonzero(~found.found)
    sets: dict[tuple[str, str], list[int]] = {}
    for row in lost.tolist():
        if names[row] in place_of:
            name, split, _ = names[row].split("/", 2)
            sets.setdefault((name, split), []).append(row)
    for (name, split), rows in sets.items():
        try:
            whole = data.load(name, split, size_px=size)
        except DataError:
            continue
        if len(whole) and "/tv-" not in str(whole.ids[0]):
            continue  # another file of rows: the ids would have been found in the right one
        order = _order(whole)
        for row in rows:
            at = order.get(place_of[str(names[row])])
            if at is None:
                continue
            found.found[row] = True
            found.labels[row] = whole.labels[at]
            if pictures:
                found.images[row] = whole.images[at]
        new = np.array([row for row in rows if found.found[row]], np.int64)
        if pictures:
            found.images[new] = through_own_jpeg(bundle, found.images[new])
        classes = found.class_names.astype(object)
        classes[new] = np.array(whole.class_names, dtype=object)[found.labels[new]]
        found = replace(found, class_names=classes.astype(str))
    return replace(found, missing=()) if found.found.all() else found


@lru_cache(maxsize=2)
def _places(path: str, bundle_hash: str) -> dict[str, tuple[int, int]]:
    """(class, place among its images) by id."""
    table = pq.read_table(Path(path), columns=["id", "label", "nth"])
    places = zip(table["label"].to_pylist(), table["nth"].to_pylist(), strict=True)
    return dict(zip(table["id"].to_pylist(), places, strict=True))


def _order(whole: ImageSet) -> dict[tuple[int, int], int]:
    """The row of each (class, place among its images)."""
    order: dict[tuple[int, int], int] = {}
    seen: dict[int, int] = {}
    for row, label in enumerate(whole.labels.tolist()):
        nth = seen.get(label, 0)
        order[(label, nth)] = row
        seen[label] = nth + 1
    return order
