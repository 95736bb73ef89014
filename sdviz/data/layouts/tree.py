"""Walks a folder of pictures: what is in it, and what is passed over."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeAlias

from ...text import writable
from ..imageset import DataError

Parts: TypeAlias = tuple[str, ...]  # the names on the way from the top to a file or folder

MAX_ENTRIES = 5_000_000
# folders of NAS (Synology, QNAP, NetApp), Windows, macOS, Linux and photo programs; those with a dot are hidden
_SYSTEM = frozenset(
    [
        "#recycle", "#snapshot", "~snapshot", "trashbox", "network recycle bin", "system volume information",
        "recycler", "recycled", "recycle.bin", "msocache", "config.msi", "wpsystem", "_vti_cnf",
        "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", "lost+found",
        "__pycache__", "captureone", "nksc_param", "adobe bridge cache", "[originals]", "thmbnl",
        "thumbnails", "_thumbnails", "thumbs", "_thumbs",
    ]
)  # fmt: skip
# $RECYCLE.BIN and the like, but not $5, which may be a class; found.000 and the like
_SYSTEM_FORM = re.compile(r"[.@].*|\$[a-z].*|found\.\d{3}", re.DOTALL)
# catalogues and previews of Lightroom, Capture One, Aperture and Photos are folders that look like files
_SYSTEM_ENDS = (
    ".lrdata", ".lrcat-data", ".lrlibrary", ".photoslibrary", ".photolibrary", ".migratedphotolibrary",
    ".aplibrary", ".cocatalog", ".cosessiondb", ".picasaoriginals",
)  # fmt: skip


@dataclass
class Tree:
    """The contents of a folder, all names as the file system has them."""

    files: list[Parts] = field(default_factory=list)  # pictures, by path: the same order on every system
    folders: list[Parts] = field(default_factory=list)  # without those that are passed over
    passed_over: Counter[str] = field(default_factory=Counter)  # suffix, or name of a folder -> files
    unreadable: list[str] = field(default_factory=list)  # folders
    hidden: list[str] = field(default_factory=list)  # pictures whose names begin with a dot
    repeated: list[str] = field(default_factory=list)  # links to folders that are read under another name

    @property
    def warnings(self) -> list[str]:
        """A line for each kind of pictures that may be missed."""
        kinds = {"hidden files": self.hidden, "links to folders that are read already": self.repeated}
        return [
            f"{kind}, passed over: {len(some)}, such as {min(some)}" for kind, some in kinds.items() if some
        ]


def walk(path: Path, suffixes: frozenset[str]) -> Tree:
    """Lists every file with one of the suffixes below a folder, following links but to no place twice.

    Raises:
        DataError: No such folder, the whole file system, or more than five million files.
    """
    top = os.path.realpath(path)
    if os.path.dirname(top) == top:
        raise DataError(f"{path} is the whole file system: name a folder of pictures")
    found = Tree()
    seen: set[str] = {top}
    n_entries = 0
    waiting: list[Parts] = [()]
    linked: list[Parts] = []
    while waiting or linked:
        # a link comes last, so that what it leads to keeps its own name
        parts = waiting.pop() if waiting else linked.pop(0)
        folder = os.path.join(path, *parts)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if not parts:
                raise DataError(f"{path} cannot be read: {error.strerror}") from error
            found.unreadable.append(writable("/".join(parts)))
            continue
        n_entries += len(entries)
        if n_entries > MAX_ENTRIES:
            raise DataError(f"{path} holds more than {MAX_ENTRIES:,} files")
        for entry in entries:
            inside = (*parts, entry.name)
            if not _is_folder(entry):
                _sort_file(found, inside, suffixes)
            elif is_system(entry.name):
                found.passed_over[writable(entry.name)] += sum(1 for _ in _files_below(entry.path))
            elif entry.is_symlink():
                target = os.path.realpath(entry.path)
                if target in seen or _is_inside(target, top) or _is_inside(top, target):
                    found.repeated.append(writable("/".join(inside)))
                else:
                    seen.add(target)
                    linked.append(inside)
            else:
                found.folders.append(inside)
                waiting.append(inside)
        if parts and os.path.islink(folder):
            found.folders.append(parts)
    found.files.sort()
    found.folders.sort()
    return found


def is_system(name: str) -> bool:
    """Whether a folder of this name belongs to a system or a program, and holds no pictures of anybody's."""
    small = name.lower()
    return small in _SYSTEM or _SYSTEM_FORM.fullmatch(small) is not None or small.endswith(_SYSTEM_ENDS)


def suffix_of(name: str) -> str:
    """The suffix of a file in small letters, such as .heic; its name where it has none."""
    return writable(PurePath(name).suffix.lower() or name)


def _sort_file(found: Tree, inside: Parts, suffixes: frozenset[str]) -> None:
    name = inside[-1]
    suffix = suffix_of(name)
    if suffix not in suffixes or name.startswith("."):
        found.passed_over[suffix] += 1
        if suffix in suffixes and not name.startswith("._"):
            found.hidden.append(writable("/".join(inside)))
    elif name.upper().startswith(("SYNOPHOTO_", "SYNOFILE_")):
        found.passed_over[suffix] += 1
    else:
        found.files.append(inside)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_inside(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _files_below(folder: str) -> Iterator[str]:
    for _, _, files in os.walk(folder):
        yield from files
