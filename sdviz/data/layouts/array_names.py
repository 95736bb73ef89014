"""Which arrays of a NumPy file are pictures and labels, by their names, and how their axes stand."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..imageset import DataError
from ..source import WHOLE
from .split_names import in_order, split_of

IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "data", "arr_0")
LABEL_WORDS = ("labels", "label", "y", "targets", "target", "classes", "arr_1")
SHAPES = "(N,H,W,3), (N,3,H,W), (N,H,W,1) or (N,H,W)"
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ArrayNames:
    """The names of a split's arrays."""

    images: str
    labels: str | None


def arrays_by_split(names: Iterable[str]) -> dict[str, ArrayNames]:
    """split -> its arrays; "all" for names without a split.

    A name is a word for images or labels, with a word for a split before or after it: images, x, train_images,
    x_train, X_test, trainX.
    """
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    for words, found in ((IMAGE_WORDS, images), (LABEL_WORDS, labels)):
        for word in words:  # the first word that fits wins
            for name in names:
                split = _split_beside(name, word)
                if split is not None:
                    found.setdefault(split, name)
    return {split: ArrayNames(images[split], labels.get(split)) for split in in_order(images)}


def _split_beside(name: str, word: str) -> str | None:
    """The split in a name that is otherwise `word`; "all" for none, None if the name is another."""
    small = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if small == word:
        return WHOLE
    for rest in (small.removeprefix(f"{word}_"), small.removesuffix(f"_{word}")):
        if rest != small and (split := split_of(rest)) is not None:
            return split
    return None


def is_numeric(array: np.ndarray) -> bool:
    """Whether its values can be pixels."""
    return array.dtype.kind in "buif"


def channels_of(source: str, shape: tuple[int, ...]) -> str:
    """Where the channels of pictures stand: "last", "first" or "none".

    Raises:
        DataError: No shape of N pictures, or one that may be a single picture.
    """
    if len(shape) == 4 and min(shape[1:]) > 0:
        if shape[3] in _CHANNELS:
            return "last"
        if shape[1] in _CHANNELS:
            return "first"
    if len(shape) == 3 and min(shape[1:]) > 0:
        if shape[2] in (3, 4):
            raise DataError(f"{source}: {_text(shape)} may be one picture or {shape[0]}: give it as {SHAPES}")
        return "none"
    raise DataError(f"{source}: images must be {SHAPES}, not {_text(shape)}")


def may_be_images(array: np.ndarray) -> bool:
    """Whether an array of any name looks like pictures in colour, or in grey with an axis for it."""
    return bool(
        is_numeric(array)
        and array.ndim == 4
        and min(array.shape[1:]) > 0
        and (array.shape[3] in _CHANNELS or array.shape[1] in _CHANNELS)
    )


def only_images(source: str, shapes: Mapping[str, np.ndarray]) -> str:
    """The only array that looks like pictures; DataError if there is none, or more."""
    fitting = [name for name, array in shapes.items() if may_be_images(array)]
    if len(fitting) != 1:
        what = "no array" if not fitting else f"{len(fitting)} arrays"
        raise DataError(
            f"{source} has {what} of images, {SHAPES}, and none called {', '.join(IMAGE_WORDS)}; it has"
            f" {', '.join(shapes) or 'nothing'}"
        )
    return fitting[0]


def _text(shape: tuple[int, ...]) -> str:
    return f"({','.join(map(str, shape))})"
