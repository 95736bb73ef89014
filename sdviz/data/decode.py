"""Decodes picture files and arrays of any kind, and makes square uint8 RGB arrays of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from .levels import BYTE, Extremes, ValueRange, likely_range
from .tiff import STARTS as TIFF_STARTS
from .tiff import plain_tiff

# how a picture becomes square: its middle is cut out, it is framed in black, or its sides are stretched
Fit: TypeAlias = Literal["crop", "pad", "stretch"]
MAX_PIXELS = 2**26
# a progressive JPEG has about ten; decoding takes time for each, however small
MAX_SCANS = 100
_START_OF_SCAN = b"\xff\xda"
_GIF_FRAME = b"\x21\xf9\x04"
_JPEG_START = b"\xff\xd8\xff"
# Pillow's names of 16-bit colour, of which it keeps the high bytes: the other order of bytes gives the low ones
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}
_TIFF_STRIPS, _TIFF_TILES, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 273, 324, 262, 0


class DecodeError(Exception):
    """Bytes that are no usable picture; the message completes a sentence that begins with the file's name."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright, of any size: one of 8 bits as Pillow has it, any other as numbers."""

    stored_size: tuple[int, int]  # width and height in the file, before it is turned upright
    mode: str  # in the file: RGB, L, I;16, float32, ...
    pixels: Image.Image | np.ndarray  # float32 (H,W,C) where it is no uint8, C 1 or 3
    alpha: np.ndarray | None = None  # float32 (H,W), 0..1, of numbers
    is_float: bool = False
    white_is_zero: bool = False
    is_jpeg: bool = False
    has_more: bool = False  # the file holds further pictures, as a stack of scans or an animation

    @cached_property
    def extremes(self) -> Extremes:
        """The least and greatest value; NaN and infinities do not count."""
        if isinstance(self.pixels, Image.Image):
            # of a palette its colours count, and no alpha
            plain = self.pixels.mode in ("1", "L", "RGB")
            bands = (self.pixels if plain else self.pixels.convert("RGB")).getextrema()
            pairs = bands if isinstance(bands[0], tuple) else (bands,)
            return Extremes("uint8", min(low for low, _ in pairs), max(high for _, high in pairs))
        finite = self.pixels[np.isfinite(self.pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        return Extremes("float" if self.is_float else "int", low, high)

    def square(self, size_px: int, fit: Fit, values: ValueRange) -> np.ndarray:
        """Makes it uint8 (size_px,size_px,3): bicubic, antialiased, alpha over white."""
        if isinstance(self.pixels, Image.Image):
            made = to_square(self.pixels, size_px, fit)
            return made if values == BYTE else values.grey_levels(made)
        numbers = np.nan_to_num(self.pixels, nan=values.low, posinf=values.high, neginf=values.low)
        if self.alpha is not None:
            share = self.alpha[..., None]
            numbers = numbers * share + values.high * (1 - share)
        bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(numbers, -1, 0)]
        level = values.grey_levels(np.stack([np.asarray(_scaled(band, size_px, fit)) for band in bands], -1))
        if self.white_is_zero:
            level = 255 - level
        return _framed(np.repeat(level, 3 // level.shape[-1], axis=-1), size_px)


def open_picture(
    blob: bytes, formats: tuple[str, ...], max_pixels: int = MAX_PIXELS, max_side_px: int | None = None
) -> Picture:
    """Decodes a picture file of any mode and turns it upright by its EXIF rotation.

    CMYK is read without its ICC profile; an animation gives its first frame.

    Args:
        formats: Pillow's names of the kinds that are read.
        max_pixels: A larger picture is refused before it is decoded.
        max_side_px: So is one with a longer side.

    Raises:
        DecodeError: Not a picture, cut short or damaged, or too large.
    """
    if not blob:
        raise DecodeError("is empty")
    try:
        with Image.open(BytesIO(blob), formats=formats) as image:
            _refuse_too_much(image, blob, max_pixels, max_side_px)
            found = replace(_decoded(image, blob, formats), has_more=_has_more(image, blob))
    except UnidentifiedImageError as error:
        if not blob.startswith(TIFF_STARTS):
            raise DecodeError("is not a picture") from error
        found = _other_tiff(blob, max_pixels)
    except Image.DecompressionBombError as error:
        raise DecodeError("has too many pixels") from error
    except DecodeError:
        raise
    except Exception as error:  # decoders, and those of plugins, raise anything for bytes that were altered
        raise DecodeError("is cut short or damaged") from error
    return found


def _other_tiff(blob: bytes, max_pixels: int) -> Picture:
    try:
        numbers = plain_tiff(blob, max_pixels)
    except Exception:  # as above
        numbers = None
    if numbers is None:
        raise DecodeError("is a damaged TIFF, or of a kind that is not read")
    return of_array(numbers)


def of_array(array: np.ndarray) -> Picture:
    """A picture of an array (H,W) or (H,W,C), C 1, 3 or 4 with alpha last, of numbers or bool."""
    size = (array.shape[1], array.shape[0])
    bands = array.shape[2] if array.ndim == 3 else 1
    if array.dtype == np.uint8:
        pixels = Image.fromarray(
            np.ascontiguousarray(array[..., 0] if array.ndim == 3 and bands == 1 else array)
        )
        return Picture(size, pixels.mode, pixels)
    with np.errstate(over="ignore"):  # what float32 does not hold counts as infinite
        numbers = array.reshape(*array.shape[:2], bands).astype(np.float32)
    alpha = None
    if bands == 4:
        full = likely_range("int", 0, float(numbers[..., 3].max())).high if array.dtype.kind in "iu" else 1.0
        numbers, alpha = numbers[..., :3], np.clip(numbers[..., 3] / full, 0, 1)
    mode = str(array.dtype.newbyteorder("="))
    return Picture(size, mode, numbers, alpha, is_float=array.dtype.kind in "fb")


def to_square(image: Image.Image, size_px: int, fit: Fit = "crop") -> np.ndarray:
    """Makes an upright picture of 8 bits uint8 (size_px,size_px,3): bicubic, antialiased, alpha over white."""
    if fit == "crop":
        image = _middle(image)
    # may be resized before alpha is laid over white, because Pillow weights by alpha
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    image = _scaled(image, size_px, fit)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return _framed(np.array(image), size_px)


def resized(images: np.ndarray, size_px: int) -> np.ndarray:
    """Gives square pictures, uint8 (N,H,H,3), another size, as files are."""
    if images.shape[1] == size_px:
        return images
    stack = np.empty((len(images), size_px, size_px, 3), np.uint8)
    for row, image in enumerate(images):
        stack[row] = to_square(Image.fromarray(image), size_px)
    return stack


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


def _refuse_too_much(image: ImageFile.ImageFile, blob: bytes, max_pixels: int, max_side_px: int | None) -> None:
    """Refuses what would take long to decode, by its header."""
    width, height = image.size
    if max_side_px is not None and max(width, height) > max_side_px:
        raise DecodeError(f"is {width} x {height} px; at most {max_side_px} px a side")
    if width * height > max_pixels:
        raise DecodeError(f"is {width} x {height} px; at most {max_pixels / 1e6:.0f} million pixels are read")
    scans = blob.count(_START_OF_SCAN)
    if scans > MAX_SCANS:
        tags = getattr(image, "tag_v2", {})
        # each strip of a TIFF may be a JPEG of its own
        strips = max((len(tags[one]) for one in (_TIFF_STRIPS, _TIFF_TILES) if one in tags), default=0)
        if scans > MAX_SCANS + strips:
            raise DecodeError(f"has {scans} scans; at most {MAX_SCANS} are read")


def _has_more(image: ImageFile.ImageFile, blob: bytes) -> bool:
    if image.format == "TIFF":
        return bool(getattr(getattr(image, "tag_v2", None), "next", 0))
    if image.format == "GIF":  # Pillow would decode the second frame to tell
        return blob.count(_GIF_FRAME) > 1
    return image.format in ("PNG", "WEBP") and bool(getattr(image, "is_animated", False))


def _decoded(image: ImageFile.ImageFile, blob: bytes, formats: tuple[str, ...]) -> Picture:
    size, raw = image.size, [_raw_mode(tile) for tile in image.tile]
    kind, _, depth = raw[0].partition(";") if raw else ("", "", "")
    if depth in ("16B", "16L", "16N") and kind in ("RGB", "RGBA", "RGBX", "LA"):
        return _deep_colour(image, blob, formats, kind)
    image.load()
    mode = image.mode
    white_is_zero = (
        mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    )
    upright = _upright(image)
    if mode == "F":
        return Picture(size, "float32", np.asarray(upright)[..., None], is_float=True)
    if mode.startswith("I"):
        numbers = np.asarray(upright.convert("I"), np.float32)[..., None]
        return Picture(size, mode[:4], numbers, white_is_zero=white_is_zero)
    return Picture(size, mode, upright, is_jpeg=blob.startswith(_JPEG_START))


def _deep_colour(image: ImageFile.ImageFile, blob: bytes, formats: tuple[str, ...], kind: str) -> Picture:
    """Decodes 16-bit colour, or grey with alpha, of which Pillow itself keeps 8 bits."""
    size = image.size
    if kind == "LA":
        # four bytes a pixel, as RGBA has
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]
        image.load()
        parts = np.asarray(_upright(image), np.float32)
        numbers = parts[..., 0::2] * 256 + parts[..., 1::2]
    else:
        with Image.open(BytesIO(blob), formats=formats) as again:
            again.tile = [_with_raw_mode(tile, _swapped(_raw_mode(tile))) for tile in again.tile]
            again.load()
            low = np.asarray(_upright(again), np.float32)
        image.load()
        numbers = np.asarray(_upright(image), np.float32) * 256 + low
    alpha = numbers[..., -1] / 65535 if numbers.shape[-1] in (2, 4) else None
    colours = numbers if alpha is None else numbers[..., :-1]
    return Picture(size, f"{kind.rstrip('X')};16", colours, alpha)


def _raw_mode(tile: ImageFile._Tile) -> str:
    arguments = tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0]
    return arguments if isinstance(arguments, str) else ""


def _with_raw_mode(tile: ImageFile._Tile, raw: str) -> ImageFile._Tile:
    return tile._replace(args=raw if isinstance(tile.args, str) else (raw, *(tile.args or ())[1:]))


def _swapped(raw: str) -> str:
    return raw[:-1] + _OTHER_ORDER[raw[-1]]


def _upright(image: Image.Image) -> Image.Image:
    with suppress(Exception):  # a damaged EXIF block does not affect the pixels
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _middle(image: Image.Image) -> Image.Image:
    """The square in the middle of a picture."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image if image.size == (side, side) else image.crop((left, top, left + side, top + side))


def _scaled(image: Image.Image, size_px: int, fit: Fit) -> Image.Image:
    """Resizes a picture to a square; with "pad", its longer side."""
    if fit == "crop":
        image = _middle(image)
    longest = max(image.size)
    width, height = (
        (max(1, round(side * size_px / longest)) for side in image.size) if fit == "pad" else (size_px, size_px)
    )
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def _framed(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """Puts uint8 (H,W,3) in the middle of a black square, unless it is that square."""
    height, width = pixels.shape[:2]
    if (height, width) == (size_px, size_px):
        return pixels
    square = np.zeros((size_px, size_px, 3), np.uint8)
    top, left = (size_px - height) // 2, (size_px - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square
