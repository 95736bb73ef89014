"""Folders of pictures in many layouts, with names and files of any kind."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sdviz import data
from sdviz.data import DataError, ImageSet
from sdviz.data.formats import readable
from sdviz.text import writable

from .cases import Kind, Wrong, heavily, same
from .pictures import EXPLICIT, a_picture, altered, compare_picture

SIZE_PX = 8
_CLASSES = ("cat", "dog", "zebra", "=1+1", "é", "7", "Über uns")
_TRAIN, _TEST = ("train", "Training", "TRAIN", "train2017"), ("test", "Testing", "Test_Set")
_JUNK = ("a.heic", "notes.txt", "@eaDir/a.jpg/THUMB.jpg", ".DS_Store", ".hidden.png", "x/Thumbs.db", "._a.png",
         "$RECYCLE.BIN/a.png", "b.mp4", "empty.png", "no picture.jpg")  # fmt: skip
# split -> path inside, and the class, "" for none
_Layout = dict[str, dict[str, str]]


def _layout(rng: random.Random) -> _Layout:
    """A layout of which the documentation says what its folders mean."""
    names = rng.sample(_CLASSES, rng.randint(2, 3))
    n = rng.randint(1, 3)
    train, test = rng.choice(_TRAIN), rng.choice(_TEST)
    how = rng.randrange(6)
    if how == 0:
        return {"all": {f"{i}.png": "" for i in range(n + 1)}}
    if how == 1:
        top = rng.choice(("", "images/", "data/"))
        return {"all": {f"{top}{one}/{i}.png": one for one in names for i in range(n)}}
    if how == 2:
        places = (("train", train), ("test", test))
        return {split: {f"{at}/{one}/{i}.png": one for one in names for i in range(n)} for split, at in places}
    if how == 3:
        places = (("train", train), ("test", test))
        return {split: {f"{one}/{at}/{i}.png": one for one in names for i in range(n)} for split, at in places}
    if how == 4:
        return {"all": {"/".join((one, *"abc"[:i], f"{i}.png")): one for one in names for i in range(n)}}
    good = {split: {f"{split}/good/{i}.png": "good" for i in range(n)} for split in ("train", "test")}
    return good | {"defects": {f"test/{one}/{i}.png": one for one in names for i in range(n)}}


def _folder(rng: random.Random, folder: Path) -> None:
    layout, top = _layout(rng), folder / "pictures"
    change = rng.choice(("nothing", "pictures", "names", "names", "all"))
    samples = {}
    for inside in sorted({one for group in layout.values() for one in group}):
        sample = a_picture(rng, SIZE_PX, SIZE_PX)
        blob = altered(rng, sample.blob) if change in ("pictures", "all") else sample.blob
        file = top / inside
        if change in ("names", "all") and rng.random() < 0.3:
            file = Path(os.fsdecode(_other_path(rng, os.fsencode(file), len(os.fsencode(top)) + 1)))
        with suppress(OSError, ValueError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(blob)
            samples[writable(str(file.relative_to(top)))] = sample
    for inside in rng.sample(_JUNK[: None if change in ("names", "all") else -2], rng.randint(0, 3)):
        (top / inside).parent.mkdir(parents=True, exist_ok=True)
        (top / inside).write_bytes(b"" if inside == "empty.png" else b"no picture")
    name = f"folder:{top}"
    found, seen = [], set[str]()
    for split in data.splits(name):
        one = data.load(name, split, on_error="skip", size_px=SIZE_PX, value_range=EXPLICIT)
        found.append(one)
        for row, inside in enumerate(_inside(one)):
            blob = _bytes_of(top, inside)
            same(one.ids[row].rpartition("@")[2], hashlib.sha256(blob).hexdigest()[:12], inside)
            known = samples.get(inside)
            sample = known if known is not None and known.blob == blob else None
            compare_picture(one.images[row], blob, EXPLICIT, sample, readable().names)
            label = one.label_name(row)
            if label != "unlabelled" and not set(label.split("/")) <= set(Path(inside).parts):
                raise Wrong(f"{inside}: of class {label!r}")
            seen.add(inside)
            if change in ("nothing", "pictures") and "/" not in split:
                same(label, layout[split][inside] or "unlabelled", inside)
    if change in ("nothing", "pictures"):
        same({one.split for one in found if "/" not in one.split}, set(layout), "splits")
    _all_accounted_for(top, found, seen)


def _other_path(rng: random.Random, path: bytes, top: int) -> bytes:
    """Another path of a file below the top folder, of any bytes but those that no name has."""
    parts = [part for part in heavily(rng, path[top:]).split(b"/") if part not in (b"", b".", b"..")]
    return path[:top] + (b"/".join(part[:200] for part in parts)[:1000].replace(b"\0", b"") or b"x.png")


def _inside(found: ImageSet) -> list[str]:
    return [one.split("/", 2)[2].rpartition("@")[0] for one in found.ids.tolist()]


def _bytes_of(top: Path, inside: str) -> bytes:
    """The bytes of the file whose path is written so."""
    with suppress(OSError):
        return (top / inside).read_bytes()
    for at, _, files in os.walk(top):
        for file in files:
            if writable(os.path.relpath(os.path.join(at, file), top)) == inside:
                return Path(at, file).read_bytes()
    raise Wrong(f"{inside}: no such file")


def _all_accounted_for(top: Path, found: Iterable[ImageSet], seen: set[str]) -> None:
    """Every file is a picture, named as unreadable, or counted as passed over."""
    n_files = sum(len(files) for _, _, files in os.walk(top))
    unreadable = {one for each in found for one in each.found.unreadable}
    passed_over = max(sum(each.found.passed_over.values()) for each in found)
    same(len(seen | unreadable) + passed_over, n_files, "pictures, unreadable ones and those passed over")
    for one in unreadable & seen:
        raise Wrong(f"{one}: read, and named as unreadable")


KINDS = {"folder": Kind(_folder, (DataError,))}
