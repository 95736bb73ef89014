"""Uploaded pictures of any size and mode."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ..text import short_line, writable
from .decode import DecodeError, Fit, open_picture
from .formats import UPLOADED, readable
from .imageset import UNKNOWN_LABEL, DataError, ImageSet
from .levels import AUTO, Levels, parse_range

# a stranger may send many: less than of files on this machine
MAX_PIXELS = 2**24
MAX_SIDE_PX = 10_000


def prepare_upload(
    file_bytes: bytes, name: str, size_px: int = 32, value_range: str = AUTO, fit: Fit = "crop"
) -> np.ndarray:
    """Decodes an uploaded file to an upright square, uint8 (size_px,size_px,3), once.

    Args:
        value_range: As in `sdviz.data.load`; "auto" takes the picture's own.
        fit: As there.

    Raises:
        DataError: Not a picture, cut short or damaged, over 16 million pixels or 10,000 px a side.
    """
    here = readable().names
    try:
        picture = open_picture(
            file_bytes, tuple(one for one in UPLOADED if one in here), MAX_PIXELS, MAX_SIDE_PX
        )
    except DecodeError as error:
        raise DataError(f"{short_line(writable(name))} {error}") from error
    values = Levels(parse_range(value_range), lambda: iter(())).take(picture.extremes)
    return picture.square(size_px, fit, values)


def from_uploads(
    files: Sequence[tuple[str, bytes]], size_px: int = 32, value_range: str = AUTO, fit: Fit = "crop"
) -> tuple[ImageSet, list[str]]:
    """Makes an image set of uploaded files, given as (name, bytes); otherwise as `prepare_upload`.

    An id is "upload/" and the first 16 hex digits of the file's SHA-256, so equal files are one image.

    Returns:
        The unlabelled set in the order given, empty if no file is usable; and one line for each unusable file.
    """
    images: dict[str, np.ndarray] = {}
    refused: list[str] = []
    for name, file_bytes in files:
        one = f"upload/{hashlib.sha256(file_bytes).hexdigest()[:16]}"
        try:
            if one not in images:
                images[one] = prepare_upload(file_bytes, name, size_px, value_range, fit)
        except DataError as error:
            refused.append(str(error))
    stack = np.stack(list(images.values())) if images else np.empty((0, size_px, size_px, 3), np.uint8)
    labels = np.full(len(images), UNKNOWN_LABEL, np.int64)
    return ImageSet("upload", "all", stack, labels, np.array(list(images), dtype=str), ()), refused
