"""Finds the images of a shuffled Parquet file in torchvision's files.

In a shuffled Parquet file, `cifar10/train/00012` is another image than `cifar10/train/tv-00012`. A bundle made
from such a file may have a table `same_images.parquet` with, for each `id`, the image's class (`label`, in
torchvision's numbers) and its place among the images of that class in the original order (`nth`, from 0).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from .. import data
from ..bundle import Bundle
from ..bundle.parts import numbers, reading, texts
from ..data import DataError, ImageSet, LookedUp
from ..data.decode import through_jpeg

SAME_IMAGES = "same_images.parquet"


def through_own_jpeg(bundle: Bundle, pictures: np.ndarray) -> np.ndarray:
    """Encodes pictures as JPEG if the run did so with its outliers, as the detector saw them."""
    jpeg = bundle.manifest.setting("outliers", "jpeg")
    return through_jpeg(pictures, jpeg["quality"], jpeg["subsampling"]) if jpeg and len(pictures) else pictures


def find_images(
    bundle: Bundle, ids: np.ndarray | Sequence[str], sources: Iterable[str] = (), pictures: bool = True
) -> LookedUp:
    """Finds images as `data.look_up` does, then in torchvision's files if the bundle has `same_images.parquet`.

    torchvision's images are lossless. If the bundle's outliers were JPEG-coded, these images are too; they are
    then close to those of the Parquet file, not equal.
    """
    found = data.look_up(ids, sources, pictures=pictures, **bundle.manifest.reading)
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
            whole = data.load(name, split, **bundle.manifest.reading)
        except DataError:
            continue
        if len(whole) and "/tv-" not in str(whole.ids[0]):
            continue  # a Parquet file again, which does not have these ids
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
    """Class and place in the class by id; `bundle_hash` is part of the key of the cache. Raises BundleError."""
    with reading(Path(path)) as file:
        table = pq.read_table(file, columns=["id", "label", "nth"])
        places = zip(*(numbers(table[one], np.int64).tolist() for one in ("label", "nth")), strict=True)
        found = dict(zip(texts(table["id"]).tolist(), places, strict=True))
        if len(found) < table.num_rows:
            raise ValueError("an image stands there twice")
        return found


def _order(whole: ImageSet) -> dict[tuple[int, int], int]:
    """The row of each class and place in the class."""
    seen: Counter[int] = Counter()
    order = {}
    for row, label in enumerate(whole.labels.tolist()):
        order[label, seen[label]] = row
        seen[label] += 1
    return order
