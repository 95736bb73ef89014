"""Puts the pictures of a set into one array, and tells what was in them."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..text import message_line, short_line, writable
from .decode import DecodeError, Fit, Picture, open_picture
from .formats import readable
from .found import Found
from .imageset import DataError, OnError
from .levels import Extremes, Levels, ValueRange

LEFT_OUT = "; left out"  # ends the warning about pictures that are skipped
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Reading:
    """How pictures are read."""

    size_px: int
    on_error: OnError  # for a picture that cannot be decoded
    pictures: bool  # if False, the images may be (N,0,0,3), and ids may lack their hash
    value_range: ValueRange | None  # None takes it from the set's values
    fit: Fit


class ImageStack:
    """Decodes pictures into one array, and reports all bad ones at the end."""

    def __init__(self, n: int, reading: Reading, sample: Callable[[], Iterator[Extremes]]) -> None:
        """Takes the number of pictures, and what looks at those of the whole set in a fixed order."""
        edge = reading.size_px if reading.pictures else 0
        self.images = np.empty((n, edge, edge, 3), np.uint8)
        self._good = np.zeros(n, bool)
        self._bad: list[str] = []
        self._bad_names: list[str] = []
        self._jpeg = np.zeros(n, bool)
        self._sizes: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._several = 0
        self._reading = reading
        self._formats = readable().names
        self._levels = Levels(reading.value_range, sample)

    def add(self, position: int, label: str, blob: bytes) -> bool:
        """Decodes `blob` into row `position`, if it can be; `label` is its name in error messages."""
        try:
            self.put(position, open_picture(blob, self._formats))
        except DecodeError as error:
            self.refuse(label, str(error))
        return bool(self._good[position])

    def put(self, position: int, picture: Picture) -> None:
        """Puts a decoded picture into a row."""
        values = self._levels.take(picture.extremes)
        self.images[position] = picture.square(self._reading.size_px, self._reading.fit, values)
        self._good[position] = True
        self._jpeg[position] = picture.is_jpeg
        self._sizes["{}x{}".format(*picture.stored_size)] += 1
        self._modes[picture.mode] += 1
        self._several += picture.has_more

    def refuse(self, label: str, reason: str) -> None:
        """Notes a bad picture; `reason` completes a sentence that begins with `label`."""
        self._bad.append(f"{short_line(writable(label))} {reason}")
        self._bad_names.append(writable(label))

    @property
    def jpeg_share(self) -> float:
        """The share of JPEG files among the good pictures, 0..1."""
        return float(self._jpeg[self._good].mean()) if self._good.any() else 0.0

    def finish(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """The good pictures, uint8 (M,size_px,size_px,3), and their positions, int64 (M,).

        Bad pictures are left out with a warning, if `on_error` is "skip".

        Raises:
            DataError: There are bad pictures and `on_error` is "raise", or no good ones.
        """
        good = np.flatnonzero(self._good)
        if not self._bad:
            return self.images, good
        named = "; ".join(self._bad[:_NAMED_AT_MOST])
        more = len(self._bad) - _NAMED_AT_MOST
        message = (
            f"{source}: {len(self._bad)} of {len(self._good)} images cannot be used: {named}"
            f"{f'; and {more} more' if more > 0 else ''}"
        )
        if self._reading.on_error == "raise" or not len(good):
            raise DataError(message)
        # points at the caller of sdviz.data.load
        warnings.warn(f"{DataError(message)}{LEFT_OUT}", stacklevel=4)
        return self.images[good], good

    def found(self, beside: Found) -> Found:
        """What was in the pictures, with what the source found beside them."""
        several = f"{self._several} files hold several pictures: the first of each is read"
        lines = [*beside.warnings, *([several] if self._several else []), *self._levels.warnings()]
        return Found(
            passed_over=beside.passed_over,
            unreadable=(*beside.unreadable, *self._bad_names),
            value_range=self._levels.stated(),
            sizes=dict(self._sizes.most_common()),
            modes=dict(self._modes.most_common()),
            splits=beside.splits,
            offered=beside.offered,
            warnings=tuple(message_line(writable(one)) for one in lines),
        )


def extremes_of(blobs: Iterable[bytes]) -> Iterator[Extremes]:
    """The extremes of picture files, without those that cannot be decoded."""
    formats = readable().names
    for blob in blobs:
        try:
            yield open_picture(blob, formats).extremes
        except DecodeError:  # the picture is refused when its turn comes
            continue
