"""Decodes picture files of any kind to square uint8 RGB arrays."""

import struct
import warnings
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..text import short_line
from .imageset import DataError, OnError

# without this list Pillow would also open PostScript, for which it starts another program
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)

# what Pillow's decoders raise for bytes that are cut short or altered
_DECODER_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip
_NAMED_AT_MOST = 5
_JPEG_START = b"\xff\xd8\xff"


class DecodeError(Exception):
    """Bytes that are no usable picture; the message completes a sentence that begins with the file's name."""


def decode_image(blob: bytes, size_px: int, max_side_px: int | None = None) -> np.ndarray:
    """Decodes a picture of any size and mode.

    Applies EXIF rotation, cuts out the centre square and resizes it (bicubic, antialiased). Alpha is laid over
    white; grey, palette, CMYK (without its ICC profile) and 16-bit pictures become 8-bit RGB; floating point is
    read as 0..1 if no value is above 1, else as 0..255; an animation gives its first frame.

    Args:
        max_side_px: A larger picture is refused before it is decoded.

    Returns:
        uint8 (size_px,size_px,3).

    Raises:
        DecodeError: Not a picture, cut short or damaged, or too large.
    """
    if not blob:
        raise DecodeError("is empty")
    try:
        with Image.open(BytesIO(blob), formats=FORMATS) as image:
            width, height = image.size
            too_large = max_side_px is not None and max(width, height) > max_side_px
            if not too_large:
                image.load()
    except UnidentifiedImageError as error:
        raise DecodeError(f"is not a picture ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise DecodeError("has too many pixels") from error
    except _DECODER_FAULTS as error:
        raise DecodeError("is cut short or damaged") from error
    if too_large:
        raise DecodeError(f"is {width} x {height} px; at most {max_side_px} px a side")
    return to_square(image, size_px)


def to_square(image: Image.Image, size_px: int) -> np.ndarray:
    """Converts a decoded picture, and may change it, to uint8 (size_px,size_px,3): see `decode_image`."""
    with suppress(*_DECODER_FAULTS):  # a damaged EXIF block does not affect the pixels
        ImageOps.exif_transpose(image, in_place=True)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_levels(image, size_px)
    # may be resized before alpha is laid over white, because Pillow weights by alpha
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if side != size_px:
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.array(image)


def resized(images: np.ndarray, size_px: int) -> np.ndarray:
    """Gives square pictures, uint8 (N,H,H,3), another size as `decode_image` does."""
    if images.shape[1] == size_px:
        return images
    stack = np.empty((len(images), size_px, size_px, 3), np.uint8)
    for row, image in enumerate(images):
        stack[row] = to_square(Image.fromarray(image), size_px)
    return stack


def _grey_levels(image: Image.Image, size_px: int) -> np.ndarray:
    """Converts a one-channel square of more than 8 bits to uint8 (size_px,size_px,3)."""
    is_float = image.mode == "F"
    if image.mode not in ("F", "I"):
        image = image.convert("I")
    if is_float:
        values = np.nan_to_num(np.asarray(image), posinf=255.0, neginf=0.0)
        full = 1.0 if values.max() <= 1.0 else 255.0
        image = Image.fromarray(values)
    else:
        full = 65535.0
    if image.size != (size_px, size_px):
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    level = np.clip(np.round(np.asarray(image, np.float64) * (255.0 / full)), 0, 255).astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=-1)


class ImageStack:
    """Decodes pictures into one array, and reports all bad ones at the end."""

    def __init__(self, n: int, size_px: int) -> None:
        self._images = np.empty((n, size_px, size_px, 3), np.uint8)
        self._good = np.zeros(n, bool)
        self._bad: list[str] = []
        self._jpeg = np.zeros(n, bool)

    def add(self, position: int, label: str, blob: bytes) -> None:
        """Decodes `blob` into row `position`; `label` is its name in error messages."""
        try:
            self._images[position] = decode_image(blob, self._images.shape[1])
            self._good[position] = True
            self._jpeg[position] = blob.startswith(_JPEG_START)
        except DecodeError as error:
            self.refuse(label, str(error))

    def refuse(self, label: str, reason: str) -> None:
        """Notes a bad picture; `reason` completes a sentence that begins with `label`."""
        self._bad.append(f"{short_line(label)} {reason}")

    @property
    def jpeg_share(self) -> float:
        """The share of JPEG files among the good pictures, 0..1."""
        return float(self._jpeg[self._good].mean()) if self._good.any() else 0.0

    def finish(self, source: str, on_error: OnError) -> tuple[np.ndarray, np.ndarray]:
        """The good pictures, uint8 (M,size_px,size_px,3), and their positions, int64 (M,).

        Args:
            on_error: "skip" leaves out bad pictures with a warning.

        Raises:
            DataError: There are bad pictures and `on_error` is "raise", or no good ones.
        """
        good = np.flatnonzero(self._good)
        if not self._bad:
            return self._images, good
        named = "; ".join(self._bad[:_NAMED_AT_MOST])
        more = len(self._bad) - _NAMED_AT_MOST
        message = (
            f"{source}: {len(self._bad)} of {len(self._good)} images cannot be used: {named}"
            f"{f'; and {more} more' if more > 0 else ''}"
        )
        if on_error == "raise" or not len(good):
            raise DataError(message)
        warnings.warn(f"{message}; left out", stacklevel=4)  # points at the caller of sdviz.data.load
        return self._images[good], good


def through_jpeg(images: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    """Encodes pictures, uint8 (N,H,W,3), as JPEG and decodes them again.

    Other encoders than Pillow's libjpeg-turbo give slightly different pictures at the same quality.

    Args:
        quality: 1..100.
        subsampling: Of the chroma: "4:4:4", "4:2:2" or "4:2:0".
    """
    again = np.empty_like(images)
    for row, image in enumerate(images):
        stream = BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=subsampling)
        with Image.open(stream) as decoded:
            again[row] = np.asarray(decoded.convert("RGB"))
    return again
