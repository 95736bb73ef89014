"""The value range of a set: which stored pixel values become black and white.

A file's container does not say which values a camera or scanner used: 12 bits are often kept in 16. So the
range is taken from the values, once for a whole set, so that no picture is brighter for being read alone.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np

from .imageset import DataError

# "uint8" is of 8 bits; "int" has more bits or a sign
Kind: TypeAlias = Literal["uint8", "int", "float"]

AUTO = "auto"
SAMPLE = 256  # pictures that a range is taken from
_TOPS = (255, 1023, 4095, 65535)  # 8, 10, 12 and 16 bits
_SLACK = 0.05  # floating point may overshoot its range by this share, as after resizing
_NUMBER = r"(-?\d{1,12}(?:\.\d{1,12})?)"
_TEXT = re.compile(rf"{_NUMBER}\.\.{_NUMBER}", re.ASCII)


@dataclass(frozen=True)
class ValueRange:
    """The values of black and white."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{_text(self.low)}..{_text(self.high)}"

    def grey_levels(self, values: np.ndarray) -> np.ndarray:
        """Maps values of any shape to uint8; values outside the range clip."""
        level = (values.astype(np.float64) - self.low) * (255.0 / (self.high - self.low))
        return np.clip(np.round(level), 0, 255).astype(np.uint8)


BYTE = ValueRange(0, 255)


@dataclass(frozen=True)
class Extremes:
    """The least and the greatest value of a picture."""

    kind: Kind
    low: float
    high: float


def parse_range(text: str) -> ValueRange | None:
    """Reads the setting `data.range`: None for "auto", else as 0..4095; DataError for anything else."""
    if text == AUTO:
        return None
    numbers = _TEXT.fullmatch(text)
    if numbers is None or not float(numbers[1]) < float(numbers[2]):
        raise DataError(f"range must be {AUTO} or LOW..HIGH, such as 0..4095 or -1..1, not {text!r}")
    return ValueRange(float(numbers[1]), float(numbers[2]))


def likely_range(kind: Kind, low: float, high: float) -> ValueRange:
    """The range that values from `low` to `high` most likely have; exactly these where none is likely."""
    slack = _SLACK if kind == "float" else 0.0
    if kind == "float" and high <= 1 + slack:
        if low >= -slack * high:
            return ValueRange(0, 1)
        if low >= -1 - slack:
            return ValueRange(-1, 1)
    for top in _TOPS:
        if low >= -slack * high and high <= top * (1 + slack):
            return ValueRange(0, top)
    return ValueRange(low, high if high > low else low + 1)


class Levels:
    """Chooses the range of a set's pictures, and notes what values they have."""

    def __init__(self, given: ValueRange | None, sample: Callable[[], Iterator[Extremes]]) -> None:
        """Takes the setting, and what gives the extremes of all pictures of the set in a fixed order."""
        self._given, self._sample = given, sample
        self._ranges: dict[Kind, ValueRange] = {}
        self._seen: dict[Kind, tuple[float, float]] = {}
        self._clipped: dict[Kind, int] = {}

    def take(self, found: Extremes) -> ValueRange:
        """Counts a picture that is read; returns its range, the same whichever pictures of the set are read."""
        taken = self._ranges.get(found.kind)
        if taken is None:
            taken = self._ranges[found.kind] = self._choose(found)
        low, high = self._seen.get(found.kind, (found.low, found.high))
        self._seen[found.kind] = min(low, found.low), max(high, found.high)
        if found.low < taken.low or found.high > taken.high:
            self._clipped[found.kind] = self._clipped.get(found.kind, 0) + 1
        return taken

    def stated(self) -> str:
        """The range of what was read; more than one if there are pictures of 8 bits and others."""
        return ", ".join(dict.fromkeys(str(self._ranges[kind]) for kind in sorted(self._seen))) or str(BYTE)

    def warnings(self) -> Iterator[str]:
        """One line for each thing about the values that may be a mistake."""
        if len(set(self._ranges.values())) > 1:
            yield f"pictures of several depths, read as {self.stated()}: data.range takes one range"
        for kind, (low, high) in self._seen.items():
            taken = self._ranges[kind]
            values = f"values lie in {ValueRange(low, high)}"
            if n := self._clipped.get(kind, 0):
                yield f"{n} pictures clip, with values outside {taken}: {values}; data.range takes another"
            if (min(high, taken.high) - max(low, taken.low)) * 8 < taken.high - taken.low:
                yield f"{values}, under an eighth of {taken}: nearly flat pictures; data.range takes another"
            if self._given is None and taken not in _USUAL:
                yield f"{values}, which is no usual range: taken as it is; data.range fixes it"
            if kind == "uint8" and self._given is not None and taken != self._given:
                yield f"pictures of 8 bits are read as {taken}, not as {self._given}"

    def _choose(self, found: Extremes) -> ValueRange:
        given = self._given
        if found.kind == "uint8":
            # a range of deeper pictures says nothing of others; one within 0..255 holds where they keep to it
            if given is None or given.low < 0 or given.high >= BYTE.high:
                return BYTE
            low, high = self._extremes(found)
            return given if given.low <= low and high <= given.high else BYTE
        return given if given is not None else likely_range(found.kind, *self._extremes(found))

    def _extremes(self, found: Extremes) -> tuple[float, float]:
        same = [found, *islice((one for one in self._sample() if one.kind == found.kind), SAMPLE)]
        return min(one.low for one in same[1:] or same), max(one.high for one in same[1:] or same)


_USUAL = (BYTE, ValueRange(0, 1), ValueRange(-1, 1), *(ValueRange(0, top) for top in _TOPS))


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6g}"
