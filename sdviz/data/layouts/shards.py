"""Finds the Parquet files that make up a set, and their splits, by their names."""

import os
import re
from glob import glob, has_magic
from pathlib import Path

from ..imageset import DataError
from ..source import WHOLE, exists
from .split_names import in_order, split_of, split_within
from .tree import is_system

SUFFIX = ".parquet"
# what may follow the split of a file under the data root
NAMED_SPLITS = ("train", "val", "validation", "test", "extra")
# as in train-00000-of-00004, with the hash that some exports add
_SHARD = re.compile(
    r"[-_.]?(?<![0-9A-Za-z])\d+[-_]of[-_]\d+(-[0-9a-f]{16})?|(?<![0-9A-Za-z])\d+(?![0-9A-Za-z])"
)
_NAMED_AT_MOST = 4


def name_and_split(path: Path) -> tuple[str, str]:
    """Name and split of `<name>_<split>.parquet`; for any other file its stem and "all"."""
    name, _, split = path.stem.rpartition("_")
    return (name, split) if name and split in NAMED_SPLITS else (path.stem, WHOLE)


def files_of(path: Path) -> dict[str, tuple[Path, ...]]:
    """split -> its files in order, of one file, a folder of shards, or a pattern such as data/train-*.parquet.

    Raises:
        DataError: There is no such file, or the files are of several sets.
    """
    if path.is_file():
        return {name_and_split(path)[1]: (path,)}
    if path.is_dir():
        top, files = path, _below(path)
    elif has_magic(str(path)):
        fixed = [part for part in path.parts[:-1] if not has_magic(part)]
        top, files = Path(*fixed) if fixed else Path(), sorted(map(Path, glob(str(path), recursive=True)))
        files = [one for one in files if one.is_file()]
    else:
        raise DataError(f"{path} {'is not a file' if exists(path) else 'does not exist'}")
    if not files:
        raise DataError(f"{path}: no {SUFFIX} files")
    found: dict[str, list[Path]] = {}
    sets: dict[str, Path] = {}
    for file in files:
        rest, split = split_within(_SHARD.sub("", file.stem))
        above = list(file.relative_to(top).parts[:-1])
        if split is None:
            split = next((one for folder in reversed(above) if (one := split_of(folder))), WHOLE)
        of = "/".join([*(one for one in above if split_of(one) is None), rest.strip("-_. ")])
        sets.setdefault(of, file)
        found.setdefault(split, []).append(file)
    if len(sets) > 1:
        names = ", ".join(str(one.relative_to(top)) for one in list(sets.values())[:_NAMED_AT_MOST])
        raise DataError(
            f"{path} holds {len(sets)} sets, such as {names}: name one, or a pattern such as *test*.parquet"
        )
    return {split: tuple(found[split]) for split in in_order(found)}


def siblings(path: Path) -> tuple[Path, ...]:
    """The other shards of the set that one file belongs to."""
    if _SHARD.search(path.stem) is None:
        return ()
    own = split_within(_SHARD.sub("", path.stem))
    beside = sorted(path.parent.glob(f"[!._]*{SUFFIX}"))
    return tuple(one for one in beside if one != path and split_within(_SHARD.sub("", one.stem)) == own)


def _below(path: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = [one for one in folders if not is_system(one)]
        found += [Path(folder, one) for one in files if one.lower().endswith(SUFFIX) and one[0] not in "._"]
    return sorted(found)
