"""A user's own folder of pictures: one sub-folder for each class, or flat."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..decode import SUFFIXES, DecodeError, ImageStack, decode_image
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, OnError, short_hash
from ..source import WHOLE, Choose, Source, path_in


def _class_names(path: Path) -> tuple[str, ...]:
    """The classes of a folder: the names of its sub-folders, sorted."""
    return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not _hidden(entry.name)))


def _checked_files(path: Path, name: str) -> list[tuple[str, ...]]:
    if not path.is_dir():
        raise DataError(f"{name}: {'is a file, not a folder' if path.exists() else 'no such folder'}")
    files = _picture_files(path)
    if not files:
        raise DataError(f"{name}: no pictures in this folder ({', '.join(sorted(SUFFIXES))})")
    return files


def _picture_files(path: Path) -> list[tuple[str, ...]]:
    """The path parts below `path` of every picture file, in an order that is the same on every system."""
    found: list[tuple[str, ...]] = []
    for folder, folders, files in os.walk(path, followlinks=True):
        here = Path(folder).resolve()
        # a link to a parent folder would never end
        folders[:] = [
            one for one in folders if not _hidden(one) and not here.is_relative_to((here / one).resolve())
        ]
        parts = Path(folder).relative_to(path).parts
        found += [(*parts, one) for one in files if not _hidden(one) and Path(one).suffix.lower() in SUFFIXES]
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


class Folder(Source):
    """`folder:PATH`: pictures sorted by path, without hidden files and other file types.

    If a sub-folder has pictures, at any depth, the sub-folders are the classes, including empty ones, so that
    the labels of two folders agree; pictures outside of them are unlabelled. Else there are no labels.

    An id is `folder/<folder's name>/<path inside>@<12 hex digits of the file's SHA-256>`: two folders of one
    name share an id only if path and picture agree.
    """

    order = 10
    kinds = ("folder",)
    on_form: Mapping[str, tuple[str, str]] = {"folder": ("a folder of pictures", "/home/me/pictures")}

    def load(
        self, name: str, split: str, choose: Choose, size_px: int, on_error: OnError, pictures: bool
    ) -> ImageSet:
        path = path_in(name)
        files = _checked_files(path, name)
        names = _class_names(path) if any(len(parts) > 1 for parts in files) else ()
        label_of = {one: label for label, one in enumerate(names)}

        rows = choose(len(files))
        stack = ImageStack(len(rows), size_px)
        labels = np.full(len(rows), UNKNOWN_LABEL, np.int64)
        ids: list[str] = []
        prefix = self.id_prefix(name, split)
        for position, row in enumerate(rows.tolist()):
            inside = "/".join(files[row])
            try:
                blob = path.joinpath(*files[row]).read_bytes()
            except OSError as error:
                stack.refuse(inside, f"cannot be read: {error.strerror}")
                ids.append("")
                continue
            stack.add(position, inside, blob)
            ids.append(f"{prefix}{inside}@{short_hash(blob)}")
            if len(files[row]) > 1:
                labels[position] = label_of[files[row][0]]
        images, good = stack.finish(name, on_error)
        known = labels[good], np.array(ids, dtype=str)[good], names
        return ImageSet(name, WHOLE, images, *known, stack.jpeg_share)

    def count(self, name: str, split: str) -> int:
        return len(_checked_files(path_in(name), name))

    def id_prefix(self, name: str, split: str) -> str:
        # not resolved, because the target of a link differs between machines
        return f"folder/{Path(os.path.abspath(path_in(name))).name}/"

    def find(self, name: str, split: str, ids: np.ndarray, size_px: int, pictures: bool) -> ImageSet:
        # opens only the files that the ids name, and leaves out changed ones
        path = path_in(name)
        if not path.is_dir():
            raise DataError(f"{name}: no such folder")
        class_names = _class_names(path)
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
                    if not short_hash(blob).startswith(digest):
                        continue
                    picture = decode_image(blob, size_px)
                except (OSError, DecodeError):
                    continue
            images.append(picture)
            labels.append(label_of.get(parts[0], UNKNOWN_LABEL) if len(parts) > 1 else UNKNOWN_LABEL)
            names.append(one)
        stack = np.stack(images) if images else np.empty((0, edge, edge, 3), np.uint8)
        return ImageSet(name, WHOLE, stack, np.array(labels, np.int64), np.array(names, dtype=str), class_names)

    def path_of(self, name: str, one: str) -> Path | None:
        return path_in(name).joinpath(*one.split("/", 2)[2].rpartition("@")[0].split("/"))

    def name_of(self, path: Path) -> str | None:
        return f"folder:{path}" if path.is_dir() and _picture_files(path) else None


SOURCE = Folder()
