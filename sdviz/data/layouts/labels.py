"""Turns the labels that files have, numbers or words, into class numbers."""

import re
from collections.abc import Iterable

import numpy as np

from ...text import writable
from ..imageset import UNKNOWN_LABEL, DataError

_CLASSES_AT_MOST = 100_000
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)


def checked_labels(
    source: str, values: np.ndarray, names: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Checks labels from a file.

    Args:
        source: The file, for the message.
        values: float64 (N,); NaN where unknown.
        names: Class names; None takes the numbers as names.

    Returns:
        int64 (N,), -1 where unknown, and the names.

    Raises:
        DataError: A label that is not a whole number from -1 to the last class.
    """
    values = np.where(np.isnan(values), UNKNOWN_LABEL, values)
    top = _CLASSES_AT_MOST if names is None else len(names)
    wrong = np.flatnonzero((values != np.round(values)) | (values < UNKNOWN_LABEL) | (values >= top))
    if len(wrong):
        raise DataError(
            f"{source}: label {values[wrong[0]]:g} in row {wrong[0]} is not a whole number in"
            f" {UNKNOWN_LABEL}..{top - 1}"
        )
    if names is None:
        names = tuple(str(i) for i in range(int(values.max(initial=UNKNOWN_LABEL)) + 1))
    return values.astype(np.int64), names


def class_words(words: Iterable[str | None]) -> tuple[str, ...]:
    """The classes among labels that are words, sorted; by value where all are whole numbers."""
    different = {writable(word) for word in words if word}
    if all(_WHOLE.fullmatch(word) for word in different):
        return tuple(sorted(different, key=lambda word: (int(word), word)))
    return tuple(sorted(different))


def numbered(words: Iterable[str | None], names: tuple[str, ...]) -> np.ndarray:
    """The class number of each word, int64; -1 for None and the empty word."""
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[writable(word)] if word else UNKNOWN_LABEL for word in words], np.int64)


def check_names(source: str, names: Iterable[object]) -> tuple[str, ...]:
    """Class names that a file gives, as text; DataError for one that stands twice."""
    texts = tuple(writable(str(one)) for one in names)
    if len(set(texts)) < len(texts):
        again = next(one for i, one in enumerate(texts) if one in texts[:i])
        raise DataError(f"{source}: two classes are called {again!r}")
    return texts
