"""Single images by their ids: what a table of scores names, found again without loading whole sets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .decode import DecodeError, decode_image
from .imageset import UNKNOWN_LABEL, DataError, ImageSet
from .sources import arrays, digits, folder, parquet, shapes, torchvision_sets


@dataclass(frozen=True, eq=False)
class Found:
    """Images found by their ids.

    Attributes:
        images: uint8 (N,H,W,3), mid-grey where an image was not found.
        found: bool (N,).
        labels: int64 (N,), the class, -1 where it is unknown.
        class_names: str (N,), its name, "" where it is unknown.
        missing: One line for each set that could not be opened.
    """

    images: np.ndarray
    found: np.ndarray
    labels: np.ndarray
    class_names: np.ndarray
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """Where ids of one prefix come from."""

    kind: str
    name: str
    split: str
    path: Path | None = None


def look_up(
    ids: np.ndarray | Sequence[str],
    root: Path,
    sources: Iterable[str] = (),
    size_px: int = shapes.SIZE_PX,
    pictures: bool = True,
) -> Found:
    """Finds images by their ids, each once or more, in any order.

    Args:
        ids: str (N,), as `sdviz.data.load` gave them.
        root: The data root.
        sources: `folder:PATH`, `parquet:PATH`, `npz:PATH` and `npy:PATH` of ids that begin with `folder/` and
            so on: such ids do not say where on the machine they lie.
        size_px: Height and width of the images.
        pictures: Whether to decode them; without, `images` has no pixels, (N,0,0,3), and a folder's or file's
            content is not looked at.

    Returns:
        What was found; an image that is not on this machine, or is no longer what its id says, is not found.
    """
    names = np.asarray(ids, dtype=str)
    edge = size_px if pictures else 0
    images = np.full((len(names), edge, edge, 3), 127, np.uint8)
    found = np.zeros(len(names), bool)
    labels = np.full(len(names), UNKNOWN_LABEL, np.int64)
    classes = np.full(len(names), "", dtype=object)
    missing: list[str] = []
    own = list(sources)
    groups: dict[_Place | str, list[int]] = {}
    for position, one in enumerate(names.tolist()):
        groups.setdefault(_place(one, root, own), []).append(position)
    for place, positions in groups.items():
        if isinstance(place, str):
            missing.append(place)
            continue
        wanted = names[positions]
        try:
            some = _load(place, wanted, root, size_px, pictures)
        except (DataError, OSError) as error:
            missing.append(f"{place.name}: {error}" if not str(error).startswith(place.name) else str(error))
            continue
        row_of = {one: row for row, one in enumerate(some.ids.tolist())}
        rows = np.array([row_of.get(one, -1) for one in wanted.tolist()])
        at = np.array(positions)[rows >= 0]
        rows = rows[rows >= 0]
        found[at] = True
        labels[at] = some.labels[rows]
        if pictures:
            images[at] = some.images[rows]
        known = some.labels[rows] >= 0
        classes[at[known]] = np.array(some.class_names, dtype=object)[some.labels[rows[known]]]
    return Found(images, found, labels, classes.astype(str), tuple(dict.fromkeys(missing)))


def _place(one: str, root: Path, sources: list[str]) -> _Place | str:
    """Where an id's image is, or one line on why that is unknown."""
    name, _, rest = one.partition("/")
    split, _, inside = rest.partition("/")
    if not inside:
        return f"{one[:60]!r} is no id of an image set"
    for source in sources:
        kind, _, path = source.partition(":")
        if kind == "folder" == name and Path(os.path.abspath(path)).name == split:
            return _Place("folder", source, folder.SPLIT, Path(path).expanduser())
        if kind == "parquet" == name and Path(path).stem == split:
            file = Path(path).expanduser()
            return _Place("own parquet", source, parquet.name_and_split(file)[1], file)
        if kind in arrays.KINDS and kind == name and Path(path).stem == split:
            return _Place("array", source, arrays.SPLIT, Path(path).expanduser())
    if name in ("folder", "parquet", *arrays.KINDS):
        return f"{name}/{split}: its place on this machine is not known"
    if name in shapes.SIZES and split in shapes.SIZES[name]:
        return _Place("drawn", name, split)
    if name == "digits":
        return _Place("digits", name, split)
    if inside.startswith("tv-"):
        return _Place("torchvision", name, split)
    file_here = parquet.files_under(root).get(name, {}).get(split)
    if file_here is None:
        return f"{name} ({split}) is not on this machine"
    return _Place("parquet", name, split, file_here)


def _load(place: _Place, ids: np.ndarray, root: Path, size_px: int, pictures: bool) -> ImageSet:
    """The set with at least those of its images that are wanted and there."""
    if place.kind == "drawn":
        rows = _rows(ids, shapes.SIZES[place.name][place.split])
        if not pictures:
            return shapes.load_labels(place.name, place.split, rows)
        return shapes.load(place.name, place.split, rows)
    if place.kind == "digits":
        return digits.load(_rows(ids, digits.N_IMAGES))
    if place.kind == "folder":
        assert place.path is not None
        return _from_folder(place.path, place.name, ids, size_px, pictures)
    if place.kind == "array":
        assert place.path is not None
        return _from_array(place.path, place.name, ids, size_px, pictures)
    if place.kind == "torchvision":
        if place.split not in torchvision_sets.present_splits(place.name, root):
            raise DataError(f"{place.name} ({place.split}) is not on this machine")
        return torchvision_sets.load(place.name, place.split, root, None, 0, size_px)
    assert place.path is not None
    own = place.kind == "own parquet"
    prefix = f"parquet/{place.path.stem}" if own else f"{place.name}/{place.split}"
    rows = _rows(ids, parquet.count(place.path))
    if not pictures:
        some = parquet.load_labels(place.path, place.name, place.split, prefix, rows)
        # without a look at the bytes, an id's hash is taken for true
        return _renamed(some, {one.partition("@")[0]: one for one in ids.tolist()}) if own else some
    return parquet.load(place.path, place.name, place.split, prefix, own, None, 0, size_px, "skip", rows)


def _rows(ids: np.ndarray, n: int) -> np.ndarray:
    """The row numbers that ids end in, those below n, each once, ascending, int64."""
    found = set()
    for one in ids.tolist():
        number = one.rpartition("/")[2].partition("@")[0]
        if number.isascii() and number.isdigit() and int(number) < n:
            found.add(int(number))
    return np.array(sorted(found), np.int64)


def _renamed(some: ImageSet, ids: dict[str, str]) -> ImageSet:
    names = np.array([ids.get(one, one) for one in some.ids.tolist()], dtype=str)
    return ImageSet(some.name, some.split, some.images, some.labels, names, some.class_names)


def _from_array(path: Path, name: str, ids: np.ndarray, size_px: int, pictures: bool) -> ImageSet:
    """Pictures of a NumPy file; one whose pixels changed since has another id and is not found."""
    some = arrays.load(path, name, None, 0, size_px, _rows(ids, arrays.count(path, name)), pictures)
    return some if pictures else _renamed(some, {one.partition("@")[0]: one for one in ids.tolist()})


def _from_folder(path: Path, name: str, ids: np.ndarray, size_px: int, pictures: bool) -> ImageSet:
    """Pictures of a folder by the paths in their ids; one that changed since is left out."""
    if not path.is_dir():
        raise DataError(f"{name}: no such folder")
    class_names = folder.class_names(path)
    label_of = {one: label for label, one in enumerate(class_names)}
    edge = size_px if pictures else 0
    images, labels, names = [], [], []
    for one in dict.fromkeys(ids.tolist()):
        inside, _, digest = one.split("/", 2)[2].rpartition("@")
        parts = inside.split("/")
        if not inside or ".." in parts or os.path.isabs(inside):
            continue
        picture = np.empty((edge, edge, 3), np.uint8)
        if pictures:
            try:
                blob = path.joinpath(*parts).read_bytes()
                if not hashlib.sha256(blob).hexdigest().startswith(digest):
                    continue
                picture = decode_image(blob, size_px)
            except (OSError, DecodeError):
                continue
        images.append(picture)
        labels.append(label_of.get(parts[0], UNKNOWN_LABEL) if len(parts) > 1 else UNKNOWN_LABEL)
        names.append(one)
    stack = np.stack(images) if images else np.empty((0, edge, edge, 3), np.uint8)
    return ImageSet(
        name, folder.SPLIT, stack, np.array(labels, np.int64), np.array(names, dtype=str), class_names
    )
