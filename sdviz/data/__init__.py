"""Image sets by name: the drawn ones, digits, torchvision's, Parquet files and folders.

    from sdviz import data

    test = data.load("shapes", "test", limit=64)
    own = data.load("folder:holiday/pictures")

Names:
    shapes, shapes-novel, shapes-novel-val, shapes-empty, digits: built in.
    cifar10, cifar100, svhn: `<name>_<split>.parquet` under the data root, else torchvision's folders there.
    any other: `<name>_<split>.parquet` under the data root with a split of train, val, validation, test,
        extra, or `<name>.parquet`, whose one split is "all". A built-in name wins over a file.
    parquet:PATH, folder:PATH, npz:PATH, npy:PATH: a file or folder anywhere, with one split.

The data root is the environment variable SDVIZ_DATA, else `data/` under the working directory; it is read
at every call.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from . import zenodo
from .decode import one_line
from .imageset import DataError, ImageSet, MissingDataError, OnError, chosen_rows, permutation
from .lookup import Found
from .lookup import look_up as _look_up
from .sources import arrays, digits, folder, parquet, shapes, torchvision_sets
from .uploads import from_uploads, prepare_upload

__all__ = [
    "DataError",
    "Found",
    "ImageSet",
    "MissingDataError",
    "count",
    "data_root",
    "download",
    "from_uploads",
    "has_masks",
    "load",
    "look_up",
    "masks",
    "names",
    "parse_source",
    "permutation",
    "prepare_upload",
    "splits",
]

BUILT_IN = (*shapes.SIZES, "digits")


# how the name of a folder or file of one's own begins
OWN_KINDS = ("folder:", "parquet:", "npz:", "npy:")


def data_root() -> Path:
    """Where sets that are not built in are looked for."""
    return Path(os.environ.get("SDVIZ_DATA") or "data")


def load(
    name: str,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: OnError = "raise",
    size_px: int = shapes.SIZE_PX,
) -> ImageSet:
    """Loads a set.

    Args:
        name: See the module's docstring.
        split: None takes the only split there is on this machine, else "train".
        limit: Takes the first so many of `permutation(n, seed)`, and reads or draws no others; an image
            and its id do not depend on it. None takes all, in the set's own order.
        seed: Which images `limit` takes.
        on_error: What to do about a picture in a folder or Parquet file that cannot be decoded: "raise",
            or "skip" it with a warning. A skipped one counts towards `limit`.
        size_px: Height and width. Pictures of another size are cut to their centre square and resized
            (bicubic). Drawn sets and digits have 32 px and no other.

    Returns:
        The set; its arrays may be shared with other callers and are then read-only.

    Raises:
        MissingDataError: No such set on this machine; says how to get it.
        DataError: A split that the set has not, a bad file, a limit or size below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1, not {limit}")
    if size_px < 1:
        raise DataError(f"size_px must be at least 1, not {size_px}")
    if on_error not in ("raise", "skip"):
        raise DataError(f'on_error must be "raise" or "skip", not {on_error!r}')

    if name in BUILT_IN and size_px != shapes.SIZE_PX:
        raise DataError(f"{name} has images of {shapes.SIZE_PX} px and no other size, not {size_px}")
    split = _choose_split(name, split)
    if name == "digits":
        return digits.load(chosen_rows(digits.N_IMAGES, limit, seed))
    if name in shapes.SIZES:
        rows = None if limit is None else chosen_rows(shapes.SIZES[name][split], limit, seed)
        return shapes.load(name, split, rows)
    path = _own_path(name, "folder:")
    if path is not None:
        return folder.load(path, name, limit, seed, size_px, on_error)
    path = _own_path(name, "parquet:")
    if path is not None:
        prefix = f"parquet/{path.stem}"
        return parquet.load(path, name, split, prefix, True, limit, seed, size_px, on_error)
    path = _array_file(name)
    if path is not None:
        return arrays.load(path, name, limit, seed, size_px)
    path = parquet.files_under(data_root()).get(name, {}).get(split)
    if path is not None:
        return parquet.load(path, name, split, f"{name}/{split}", False, limit, seed, size_px, on_error)
    return torchvision_sets.load(name, split, data_root(), limit, seed, size_px)


def count(name: str, split: str | None = None, limit: int | None = None) -> int:
    """How many images `load` would give, bad ones included, without decoding any.

    Raises:
        MissingDataError, DataError: As `load`.
    """
    split = _choose_split(name, split)
    own_folder, own_file = _own_path(name, "folder:"), _own_path(name, "parquet:")
    found = parquet.files_under(data_root()).get(name, {}).get(split)
    if name == "digits":
        n = digits.N_IMAGES
    elif name in shapes.SIZES:
        n = shapes.SIZES[name][split]
    elif own_folder is not None:
        n = folder.count(own_folder, name)
    elif own_file is not None:
        n = parquet.count(own_file)
    elif (array_file := _array_file(name)) is not None:
        n = arrays.count(array_file, name)
    elif found is not None:
        n = parquet.count(found)
    else:
        n = len(torchvision_sets.load(name, split, data_root(), None, 0, shapes.SIZE_PX))
    return n if limit is None else min(n, limit)


def names() -> tuple[str, ...]:
    """Every name that `load` takes on this machine without a path: the built-in ones, then those present."""
    root = data_root()
    found = {
        name
        for name, files in parquet.files_under(root).items()
        if any(parquet.has_images(path) for path in files.values())
    }
    found.update(name for name in torchvision_sets.NAMES if torchvision_sets.present_splits(name, root))
    return (*BUILT_IN, *sorted(found - set(BUILT_IN)))


def splits(name: str) -> tuple[str, ...]:
    """The splits of a set that are on this machine.

    Raises:
        MissingDataError: No such set on this machine; says how to get it.
    """
    present = _present_splits(name)
    if not present:
        raise MissingDataError(_how_to_get(name, None))
    return present


def masks(ids: np.ndarray) -> np.ndarray:
    """The object masks of drawn images, bool (N,32,32), see `sdviz.data.sources.shapes.masks`."""
    return shapes.masks(ids)


def look_up(
    ids: np.ndarray | Sequence[str],
    sources: Iterable[str] = (),
    size_px: int = shapes.SIZE_PX,
    pictures: bool = True,
) -> Found:
    """Finds images by their ids under the data root: see `sdviz.data.lookup.look_up`."""
    return _look_up(ids, data_root(), sources, size_px, pictures)


def has_masks(name: str) -> bool:
    """Whether `masks` takes the ids of this set."""
    return name in shapes.SIZES


def download(name: str) -> Path:
    """Fetches cifar10, cifar100 or svhn through torchvision, train and test, and returns the data root.

    Raises:
        DataError: Another name, or a download that failed.
    """
    if name not in torchvision_sets.NAMES:
        able = ", ".join((*torchvision_sets.NAMES, *zenodo.RECORDS))
        raise DataError(f"{name!r} cannot be downloaded; {able} can")
    root = data_root()
    torchvision_sets.download(name, root)
    return root


def parse_source(text: str) -> tuple[str, str | None]:
    """Name and split of `NAME` or `NAME:SPLIT`, as in "shapes:test"; a path is taken whole."""
    if text.startswith(OWN_KINDS):
        return text, None
    name, _, split = text.partition(":")
    return name, split or None


def _own_path(name: str, kind: str) -> Path | None:
    if not name.startswith(kind):
        return None
    if name == kind:
        raise DataError(f"{name} needs a path, as in {kind}PATH")
    return Path(name.removeprefix(kind)).expanduser()


def _array_file(name: str) -> Path | None:
    return next((path for kind in arrays.KINDS if (path := _own_path(name, f"{kind}:")) is not None), None)


def _present_splits(name: str) -> tuple[str, ...]:
    """The splits on this machine, none for a name that is not here; a path is not looked at."""
    if name in shapes.SIZES:
        return shapes.splits(name)
    if name == "digits":
        return (digits.SPLIT,)
    if _own_path(name, "folder:") is not None:
        return (folder.SPLIT,)
    path = _own_path(name, "parquet:")
    if path is not None:
        return (parquet.name_and_split(path)[1],)
    if _array_file(name) is not None:
        return (arrays.SPLIT,)
    root = data_root()
    found = list(parquet.files_under(root).get(name, {}))
    if name in torchvision_sets.NAMES:
        found += [one for one in torchvision_sets.present_splits(name, root) if one not in found]
    return tuple(found)


def _choose_split(name: str, split: str | None) -> str:
    present = _present_splits(name)
    if not present:
        raise MissingDataError(_how_to_get(name, split))
    if split in present:
        return split
    if split is None and len(present) == 1:
        return present[0]
    if split is None and "train" in present:
        return "train"
    there = f"the split{'' if len(present) == 1 else 's'} {', '.join(present)}"
    if split is None:
        raise DataError(f"{name} has {there}: name one")
    if name in torchvision_sets.NAMES and split in torchvision_sets.all_splits(name):
        raise MissingDataError(f"{name} has only {there} here: {_ways(name, split)}")
    raise DataError(f"{name} has only {there}, not {split!r}")


def _ways(name: str, split: str | None) -> str:
    file = f"{name}_{split}.parquet" if split in torchvision_sets.all_splits(name) else f"{name}_train.parquet"
    return (
        f"run `python -m sdviz download {name}`, or put {file} in {data_root()}, or set SDVIZ_DATA to the"
        f" folder that has it"
    )


def _how_to_get(name: str, split: str | None) -> str:
    if name in torchvision_sets.NAMES:
        return f"{name} is not on this machine: {_ways(name, split)}"
    known = sorted({*names(), *torchvision_sets.NAMES})
    near = difflib.get_close_matches(name, known) or known
    shown = one_line(name)
    return (
        f"no data set {shown!r}; nearest: {', '.join(near)}; or put {shown}.parquet in {data_root()}, or set"
        f" SDVIZ_DATA to the folder that has it, or give a path (parquet:PATH, folder:PATH, npz:PATH, npy:PATH)"
    )
