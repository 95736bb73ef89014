"""Loads image sets by name: drawn sets, digits, torchvision's sets, Parquet files, folders and NumPy files.

    from sdviz import data

    test = data.load("shapes", "test", limit=64)
    own = data.load("folder:holiday/pictures")

Names:
    shapes, shapes-novel, shapes-novel-val, shapes-empty, digits: built in.
    cifar10, cifar100, svhn: `<name>_<split>.parquet` under the data root, else torchvision's folders there.
    any other: `<name>_<split>.parquet` under the data root, with one of the splits train, val, validation,
        test and extra; or `<name>.parquet`, with the split "all". Built-in names come first.
    folder:PATH, parquet:PATH, npz:PATH, npy:PATH, csv:PATH, tsv:PATH: a file or folder anywhere. A split may
        stand in the name, as folder:PATH:test; columns of tables, too, as parquet:PATH?label=COLUMN.

The data root is the environment variable SDVIZ_DATA, else `data/` under the working directory; it may change
between calls. Each kind of image sets is one file in `sdviz.data.sources`.
"""

import difflib
from pathlib import Path
from typing import get_args

import numpy as np

from ..text import short_line, writable
from .decode import Fit
from .found import Found
from .imageset import DataError, ImageSet, MissingDataError, OnError, chosen_rows, permutation
from .layouts.split_names import meant
from .levels import AUTO, parse_range
from .lookup import LookedUp, look_up
from .source import Source, data_root, reading_of
from .sources import SOURCES, sources_of
from .stack import Reading

__all__ = [
    "BUILT_IN",
    "DOWNLOADS",
    "OWN_KINDS",
    "DataError",
    "Found",
    "ImageSet",
    "LookedUp",
    "MissingDataError",
    "ON_FORM",
    "SHADES",
    "all_splits",
    "count",
    "data_root",
    "download",
    "has_masks",
    "load",
    "look_up",
    "masks",
    "names",
    "parse_source",
    "permutation",
    "splits",
    "splits_here",
]

_NAMED_AT_MOST = 12
# sets that exist on every machine
BUILT_IN = tuple(name for source in SOURCES for name in source.built_in)
# beginnings of names with a path, such as "folder:"
OWN_KINDS = tuple(prefix for source in SOURCES for prefix in source.prefixes)
# such a beginning -> its title in a form, and an example of a path
ON_FORM = {f"{kind}:": texts for source in SOURCES for kind, texts in source.on_form.items()}
# sets with a fixed colour -> its place among the shades of their role
SHADES = {name: shade for source in SOURCES for name, shade in source.shades.items()}
# sets that `download` can fetch -> bytes
DOWNLOADS = {name: n for source in SOURCES for name, n in source.downloads.items()}


def load(
    name: str,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_error: OnError = "raise",
    size_px: int = 32,
    value_range: str = AUTO,
    fit: Fit = "crop",
) -> ImageSet:
    """Loads a set.

    Args:
        name: See the module's docstring.
        split: In any spelling, as Training for train. None takes the one in the name, or the only split there
            is on this machine, else "train".
        limit: Takes the first rows of `permutation(n, seed)` and reads no others; this changes no image and no
            id. None takes all, in the set's own order.
        seed: Decides which images `limit` takes.
        on_error: For a picture that cannot be decoded: "raise", or "skip" it with a warning. A skipped picture
            counts towards `limit`.
        size_px: Height and width. Pictures of another size are resized (bicubic); so are drawn sets and digits,
            which are made at 32 px.
        value_range: The stored values of black and white, as "0..4095", for pictures of more than 8 bits and
            floating point. "auto" takes it from the values, once for all splits of the set.
        fit: Of pictures that are not square: "crop" cuts out the middle, "pad" frames them in black, "stretch"
            changes their proportions.

    Returns:
        The set, with what was found beside it. Arrays that are shared with other callers are read-only.

    Raises:
        MissingDataError: The set is not on this machine; the message says how to get it.
        DataError: A split that the set lacks, a bad file, a limit or size below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1, not {limit}")
    if size_px < 1:
        raise DataError(f"size_px must be at least 1, not {size_px}")
    if on_error not in ("raise", "skip"):
        raise DataError(f'on_error must be "raise" or "skip", not {on_error!r}')

    if fit not in get_args(Fit):
        raise DataError(f"fit must be {', '.join(get_args(Fit))}, not {fit!r}")
    name = writable(name)
    reading = Reading(size_px, on_error, True, parse_range(value_range), fit)
    with reading_of(name):
        source, split = _source_and_split(name, split)
        return source.load(name, split, lambda n: chosen_rows(n, limit, seed), reading)


def count(name: str, split: str | None = None, limit: int | None = None) -> int:
    """Counts the images of `load`, including bad ones, without decoding. Raises as `load`."""
    name = writable(name)
    with reading_of(name):
        source, split = _source_and_split(name, split)
        n = source.count(name, split)
    return n if limit is None else min(n, limit)


def names() -> tuple[str, ...]:
    """Every set on this machine that needs no path: the built-in ones, then those under the data root."""
    found = {name for source in SOURCES for name in source.names()}
    return (*BUILT_IN, *sorted(found - set(BUILT_IN)))


def splits(name: str) -> tuple[str, ...]:
    """The splits of a set on this machine. Raises MissingDataError if it is not here."""
    if not (present := splits_here(name)):
        raise MissingDataError(_how_to_get(name, None))
    return present


def splits_here(name: str) -> tuple[str, ...]:
    """The splits of a set on this machine; () if it is not here."""
    name = writable(name)
    with reading_of(name):
        return tuple(_present_splits(name))


def all_splits(name: str) -> tuple[str, ...]:
    """All splits of a set in `DOWNLOADS`, whether they are here or not."""
    return _downloader(name).all_splits(name)


def masks(ids: np.ndarray) -> np.ndarray:
    """Object masks of drawn images by id: bool (N,32,32). Raises DataError for an id without a mask."""
    ids = np.asarray(ids, dtype=str)
    (source,) = (one for one in SOURCES if one.mask_px)
    return source.masks(ids)


def has_masks(name: str, size_px: int) -> bool:
    """Whether `masks` knows the ids of this set and has masks of that size."""
    return any(source.mask_px == size_px for source in sources_of(name))


def download(name: str, root: Path | None = None) -> Path:
    """Downloads a set of `DOWNLOADS` into a folder, by default the data root. DataError if it fails."""
    if name not in DOWNLOADS:
        from .zenodo import RECORDS

        raise DataError(f"{name!r} cannot be downloaded; {', '.join((*DOWNLOADS, *RECORDS))} can")
    root = root or data_root()
    _downloader(name).download(name, root)
    return root


def parse_source(text: str) -> tuple[str, str | None]:
    """Splits `NAME:SPLIT`, such as "shapes:test", into name and split; a name with a path keeps its own."""
    if text.startswith(OWN_KINDS):
        return text, None
    name, _, split = text.partition(":")
    return name, split or None


def _downloader(name: str) -> Source:
    return next(source for source in SOURCES if name in source.downloads)


def _present_splits(name: str) -> dict[str, Source]:
    """The splits of a set on this machine, each with its source."""
    found: dict[str, Source] = {}
    for source in sources_of(name):
        for split in source.splits(name):
            found.setdefault(split, source)
    return found


def _source_and_split(name: str, split: str | None) -> tuple[Source, str]:
    present = _present_splits(name)
    if not present:
        raise MissingDataError(_how_to_get(name, split))
    if split is None:
        split = next(iter(present)) if len(present) == 1 else "train"
        if split not in present:
            raise DataError(f"{name} has the splits {', '.join(present)}: name one")
    if (found := meant(split, present)) is not None:
        return present[found], found
    there = f"the split{'' if len(present) == 1 else 's'} {', '.join(present)}"
    if name in DOWNLOADS and split in all_splits(name):
        raise MissingDataError(f"{name} has only {there} here: {_ways(name, split)}")
    raise DataError(f"{name} has only {there}, not {split!r}")


def _ways(name: str, split: str | None) -> str:
    file = f"{name}_{split if split in all_splits(name) else 'train'}.parquet"
    return (
        f"run `python -m sdviz download {name}`, or put {file} in {data_root()}, or set SDVIZ_DATA to the"
        f" folder that has it"
    )


def _how_to_get(name: str, split: str | None) -> str:
    if name in DOWNLOADS:
        return f"{name} is not on this machine: {_ways(name, split)}"
    known = sorted({*names(), *DOWNLOADS})
    near = difflib.get_close_matches(short_line(name), known) or known[:_NAMED_AT_MOST]
    shown = short_line(name)
    return (
        f"no data set {shown!r}; nearest: {', '.join(near)}; or put {shown}.parquet in {data_root()}, set"
        f" SDVIZ_DATA to its folder, or give a path, as {OWN_KINDS[0]}PATH"
    )
