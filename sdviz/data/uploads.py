"""Uploaded pictures of any size and mode."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ..text import short_line
from .decode import DecodeError, decode_image
from .imageset import UNKNOWN_LABEL, DataError, ImageSet

MAX_SIDE_PX = 10_000


def prepare_upload(file_bytes: bytes, name: str, size_px: int = 32) -> np.ndarray:
    """Decodes an uploaded file to its upright centre square, uint8 (size_px,size_px,3), as `decode_image` does.

    Raises:
        DataError: Not a picture, cut short or damaged, or over 10,000 px a side.
    """
    try:
        return decode_image(file_bytes, size_px, MAX_SIDE_PX)
    except DecodeError as error:
        raise DataError(f"{short_line(name)} {error}") from error


def from_uploads(files: Sequence[tuple[str, bytes]], size_px: int = 32) -> tuple[ImageSet, list[str]]:
    """Makes an image set of uploaded files, given as (name, bytes).

    An id is "upload/" and the first 16 hex digits of the file's SHA-256, so equal files are one image.

    Returns:
        The unlabelled set in the order given, empty if no file is usable; and one line for each unusable file.
    """
    images: dict[str, np.ndarray] = {}
    refused: list[str] = []
    for name, file_bytes in files:
        one = f"upload/{hashlib.sha256(file_bytes).hexdigest()[:16]}"
        try:
            images[one] = prepare_upload(file_bytes, name, size_px)
        except DataError as error:
            refused.append(str(error))
    stack = np.stack(list(images.values())) if images else np.empty((0, size_px, size_px, 3), np.uint8)
    labels = np.full(len(images), UNKNOWN_LABEL, np.int64)
    return ImageSet("upload", "all", stack, labels, np.array(list(images), dtype=str), ()), refused
