"""A user's own folder of pictures, in any of the layouts that `sdviz.data.layouts.folders` knows."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...text import writable
from ..formats import readable, what_helps
from ..found import Found
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, short_hash
from ..layouts.folders import Layout, understand
from ..layouts.tree import Parts, Tree, walk
from ..levels import Extremes
from ..source import (
    WHOLE,
    Choose,
    Source,
    address,
    exists,
    only_asked,
    path_in,
    reading_of,
    sample_order,
    unescaped,
)
from ..stack import ImageStack, Reading, extremes_of

_NAMED_AT_MOST = 5


class _Opened:
    """A folder with what was found in it."""

    def __init__(self, name: str) -> None:
        """Raises DataError if there is no such folder, or no picture in it."""
        where = address(name)
        self.name, self.path = name, where.path
        if where.options:
            raise DataError(f"{name}: a folder has no options")
        if not os.path.isdir(self.path):
            raise DataError(f"{name}: {'is a file, not a folder' if exists(self.path) else 'no such folder'}")
        self.suffixes = readable().suffixes
        with reading_of(name):
            self.tree: Tree = walk(self.path, self.suffixes)
        self.layout: Layout = understand(self.tree, os.path.basename(os.path.abspath(self.path)))
        if not any(self.layout.files.values()):
            raise DataError(f"{name}: no pictures in this folder ({self._what_else()})")

    def files(self, split: str) -> list[Parts]:
        return self.layout.files[split]

    def sample(self) -> Iterator[Extremes]:
        """Looks at the files of all splits, in the order of `sample_order`."""
        return extremes_of(self._blobs())

    def _blobs(self) -> Iterator[bytes]:
        every = sorted({one for files in self.layout.files.values() for one in files})
        for row in sample_order(len(every)).tolist():
            try:
                yield read_file(self.path.joinpath(*every[row]))
            except OSError:  # is refused when its turn comes
                continue

    def found(self) -> Found:
        """What there is beside the pictures."""
        passed_over = self.tree.passed_over + self.layout.passed_over
        helps = [
            f"{n} {suffix}: {help}" for suffix, n in sorted(passed_over.items()) if (help := what_helps(suffix))
        ]
        unreadable = self.tree.unreadable
        return Found(
            passed_over=dict(passed_over.most_common()),
            unreadable=tuple(unreadable),
            splits={split: len(files) for split, files in self.layout.files.items()},
            offered=tuple(f"folder:{writable(str(self.path))}:{one}" for one in self.layout.offered),
            warnings=(*helps, *self.layout.warnings, *self.tree.warnings),
        )

    def _what_else(self) -> str:
        other = self.tree.passed_over.most_common(_NAMED_AT_MOST)
        if not other:
            return ", ".join(sorted(self.suffixes & {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}))
        return "passed over: " + "; ".join(
            f"{n} {suffix}{f': {help}' if (help := what_helps(suffix)) else ''}" for suffix, n in other
        )


class Folder(Source):
    """`folder:PATH`, or `folder:PATH:SPLIT`: pictures sorted by path.

    If a sub-folder has pictures, at any depth, the sub-folders are the classes, including empty ones, so that
    the labels of two folders agree; pictures outside of them are unlabelled. Else there are no labels.

    An id is `folder/<folder's name>/<path inside>@<12 hex digits of the file's SHA-256>`: two folders of one
    name share an id only if path and picture agree. Bytes of a name that are no UTF-8 stand as %E9 in it.
    """

    order = 10
    kinds = ("folder",)
    on_form: Mapping[str, tuple[str, str]] = {"folder": ("a folder of pictures", "/home/me/pictures")}

    def splits(self, name: str) -> tuple[str, ...]:
        path = path_in(name)
        if not os.path.isdir(path):
            return (WHOLE,)
        with reading_of(name):
            tree = walk(path, readable().suffixes)
        layout = understand(tree, os.path.basename(os.path.abspath(path)))
        return only_asked(name, tuple(split for split, files in layout.files.items() if files) or (WHOLE,))

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        opened = _Opened(name)
        beside = opened.found()
        if opened.tree.unreadable and reading.on_error == "raise":
            raise DataError(f"{name}: folders that cannot be read: {', '.join(opened.tree.unreadable)}")
        files = opened.files(split)
        rows = choose(len(files))
        stack = ImageStack(len(rows), reading, opened.sample)
        labels = np.full(len(rows), UNKNOWN_LABEL, np.int64)
        ids: list[str] = []
        prefix = self.id_prefix(name, split)
        for position, row in enumerate(rows.tolist()):
            inside = writable("/".join(files[row]))
            labels[position] = opened.layout.label_of.get(files[row], UNKNOWN_LABEL)
            try:
                blob = read_file(opened.path.joinpath(*files[row]))
            except OSError as error:
                stack.refuse(inside, f"cannot be read: {error.strerror}")
                ids.append("")
                continue
            stack.add(position, inside, blob)
            ids.append(f"{prefix}{inside}@{short_hash(blob)}")
        images, good = stack.finish(name)
        known = labels[good], np.array(ids, dtype=str)[good], opened.layout.class_names[split]
        return ImageSet(name, split, images, *known, stack.jpeg_share, stack.found(beside))

    def count(self, name: str, split: str) -> int:
        return len(_Opened(name).files(split))

    def paths(self, name: str, split: str) -> list[Path]:
        opened = _Opened(name)
        return [opened.path.joinpath(*parts) for parts in opened.files(split)]

    def id_prefix(self, name: str, split: str) -> str:
        # not resolved, because the target of a link differs between machines
        return f"folder/{writable(os.path.basename(os.path.abspath(path_in(name))))}/"

    def find(self, name: str, split: str, ids: np.ndarray, reading: Reading) -> ImageSet:
        # opens only the files that the ids name, and leaves out changed ones
        opened = _Opened(name)
        layout = opened.layout
        place: dict[str, tuple[str, Parts]] = {}
        for one, files in layout.files.items():
            for parts in files:
                place.setdefault(writable("/".join(parts)), (one, parts))
        wanted = dict.fromkeys(ids.tolist())
        known = [one for one in wanted if one.split("/", 2)[2].rpartition("@")[0] in place]
        stack = ImageStack(len(known), reading, opened.sample)
        # labels of several splits, whose classes may differ
        names = tuple(dict.fromkeys(one for group in layout.class_names.values() for one in group))
        labels = np.full(len(known), UNKNOWN_LABEL, np.int64)
        kept = np.zeros(len(known), bool)
        for position, one in enumerate(known):
            inside, _, digest = one.split("/", 2)[2].rpartition("@")
            of, parts = place[inside]
            if reading.pictures:
                try:
                    blob = read_file(opened.path.joinpath(*parts))
                except OSError:
                    continue
                if not short_hash(blob).startswith(digest):
                    continue
                kept[position] = stack.add(position, inside, blob)
            else:
                kept[position] = True
            if (label := layout.label_of.get(parts)) is not None:
                labels[position] = names.index(layout.class_names[of][label])
        return ImageSet(name, split, stack.images[kept], labels[kept], np.array(known, dtype=str)[kept], names)

    def paths_of(self, name: str, ids: Sequence[str]) -> list[Path]:
        inside = (one.split("/", 2)[2].rpartition("@")[0].split("/") for one in ids)
        return [unescaped(path_in(name).joinpath(*parts)) for parts in inside]

    def name_of(self, path: Path) -> str | None:
        return f"folder:{path}" if path.is_dir() and walk(path, readable().suffixes).files else None


def read_file(path: Path) -> bytes:
    """The bytes of a file; OSError, too, for what is no file, such as a pipe, which would never end."""
    with open(path, "rb", opener=_open_at_once) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(0, "is not a file")
        return stream.read()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


SOURCE = Folder()
