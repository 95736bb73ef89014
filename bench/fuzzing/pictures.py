"""Picture files of many kinds, sound and damaged, read by Pillow alone to compare with; uploads of them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, features

from sdviz.data import DataError
from sdviz.data.formats import UPLOADED, readable
from sdviz.data.uploads import from_uploads, prepare_upload

from .cases import Kind, Wrong, a_word, heavily, same

EXPLICIT = "0..65535"
RANGES = ("auto", "auto", EXPLICIT, "0..4095", "-1..1", "0..1", "0..1e3", "1..0", "9" * 400 + "..1")
_TOPS = (255, 1023, 4095, 65535)
_SHAPES = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "I;16": (), "CMYK": (4,), "F": (), "I": (), "1": ()}


@dataclass(frozen=True)
class Sample:
    """A sound picture file."""

    suffix: str
    blob: bytes
    numbers: np.ndarray  # (H,W) or (H,W,C), as stored
    is_exact: bool  # whether a reader gets exactly these numbers


def _pillow(suffix: str, mode: str, is_exact: bool = True, **options: object) -> Callable[..., Sample]:
    kind = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}.get(suffix, suffix[1:].upper())

    def make(rng: random.Random, height: int, width: int) -> Sample:
        numbers = _numbers(rng, (height, width, *_SHAPES[mode]), mode)
        image = Image.fromarray(numbers * 255).convert("1") if mode == "1" else None
        if mode == "CMYK":
            image = Image.frombytes("CMYK", (width, height), numbers.tobytes())
        image = image or Image.fromarray(numbers)
        stream, exif = BytesIO(), Image.Exif()
        if kind in ("JPEG", "TIFF", "WEBP") and rng.random() < 0.2:
            exif[0x0112] = rng.randint(1, 8)
        image.save(stream, kind, exif=exif, **options)
        return Sample(suffix, stream.getvalue(), numbers, is_exact and not exif)

    return make


def _numbers(rng: random.Random, shape: tuple[int, ...], mode: str) -> np.ndarray:
    draw = np.random.default_rng(rng.getrandbits(32))
    top = rng.choice((255, 1023, 4095, 65535))
    if mode == "F":
        return draw.uniform(rng.choice((0, 0, -1)), rng.choice((1, 1, 300)), shape).astype(np.float32)
    if mode == "I;16":
        return draw.integers(0, top + 1, shape, np.uint16)
    if mode == "I":
        return draw.integers(0, top + 1, shape, np.int32)
    return draw.integers(0, 2 if mode == "1" else 256, shape, np.uint8)


def _deep_png(channels: int) -> Callable[..., Sample]:
    """A PNG of 16-bit grey with alpha, colour, or both, which Pillow does not write."""

    def make(rng: random.Random, height: int, width: int) -> Sample:
        numbers = np.random.default_rng(rng.getrandbits(32)).integers(0, 65536, (height, width, channels))
        head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
        parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        blob = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in parts)
        return Sample(".png", blob, numbers, True)

    return make


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _science_tiff(kind: str, channels: int) -> Callable[..., Sample]:
    """A TIFF of half, double or several bands of floating point, which Pillow does not read."""

    def make(rng: random.Random, height: int, width: int) -> Sample:
        numbers = np.random.default_rng(rng.getrandbits(32)).uniform(0, 1, (height, width, channels))
        content = numbers.astype(kind).tobytes()
        order, depth = ("<", int(kind[2:]) * 8) if kind[0] == "<" else (">", int(kind[2:]) * 8)
        tags = ((256, width), (257, height), (258, depth), (259, 1), (262, 1), (273, 0), (277, channels),
                (278, height), (279, len(content)), (339, 3))  # fmt: skip
        start = 8 + 2 + 12 * len(tags) + 4
        entries = b"".join(
            struct.pack(f"{order}HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags
        )
        head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
        return Sample(".tif", head + entries + bytes(4) + content, numbers.astype(kind), True)

    return make


KINDS_OF_PICTURES: tuple[Callable[..., Sample], ...] = (
    *(_pillow(".png", mode) for mode in ("L", "RGB", "RGBA", "LA", "1", "I;16")),
    *(_pillow(".tif", mode) for mode in ("L", "RGB", "I;16", "F", "I", "RGBA")),
    *(_pillow(".tif", "RGB", compression=one) for one in ("tiff_deflate", "tiff_lzw", "packbits")),
    *(_pillow(".tif", "I;16", compression="tiff_deflate"), _pillow(".tif", "L", False, compression="jpeg")),
    *(_pillow(".jpg", mode, False) for mode in ("L", "RGB", "CMYK")),
    *(_pillow(".jpg", "RGB", False, progressive=True), _pillow(".webp", "RGB", False)),
    *(_pillow(".webp", "RGB", lossless=True), _pillow(".webp", "RGBA", lossless=True, exact=True)),
    *(_pillow(".gif", "L"), _pillow(".gif", "RGB", False), _pillow(".bmp", "RGB"), _pillow(".bmp", "L")),
    *(_pillow(".ppm", "RGB"), _pillow(".ppm", "L"), _pillow(".ppm", "I;16")),
    *((_pillow(".avif", "RGB", False),) if features.check("avif") else ()),
    *(_deep_png(channels) for channels in (2, 3, 4)),
    *(_science_tiff(kind, channels) for kind, channels in (("<f2", 1), (">f8", 1), ("<f4", 3))),
)
OTHER_KINDS = (_pillow(".tga", "RGB"), _pillow(".pcx", "RGB"), _pillow(".jp2", "RGB", False))


def a_picture(rng: random.Random, height: int = 0, width: int = 0, others: bool = True) -> Sample:
    """A sound picture of any kind, by default of 1 to 20 px a side."""
    makers = KINDS_OF_PICTURES + (OTHER_KINDS if others else ())
    return rng.choice(makers)(rng, height or rng.randint(1, 20), width or rng.randint(1, 20))


def altered(rng: random.Random, blob: bytes) -> bytes:
    """A picture file as it is, or changed: anywhere, in its second half alone, or with sizes of its own."""
    how = rng.random()
    if how < 0.4:
        return blob
    found = bytearray(blob)
    if how < 0.5:
        for _ in range(rng.randint(1, 4)):
            found[rng.randrange(len(found) // 2, len(found))] = rng.randrange(256)
    elif how < 0.7:  # a number in the header
        at = rng.randrange(min(len(found), 200))
        number = struct.pack(rng.choice("<>") + rng.choice("HI"), rng.choice((0, 1, 255, 5_000, 65_535)))
        found[at : at + len(number)] = number
    elif how < 0.75 and (at := blob.find(b"\xff\xda")) > 0:  # the last scan of a JPEG again and again
        return blob[:-2] + blob[at:-2] * rng.choice((1, 20, 3_000)) + blob[-2:]
    else:
        found = bytearray(heavily(rng, blob))
    return _with_checksums(bytes(found)) if rng.random() < 0.8 else bytes(found)


def _with_checksums(blob: bytes) -> bytes:
    """A PNG whose checksums fit, so that its content is looked at; any other file as it is."""
    if not blob.startswith(b"\x89PNG"):
        return blob
    found, at = bytearray(blob), 8
    while at + 12 <= len(found):
        size = int.from_bytes(found[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(found):
            break
        found[end : end + 4] = struct.pack(">I", zlib.crc32(found[at + 4 : end]))
        at = end + 4
    return bytes(found)


# --- another reading ------------------------------------------------------------------------------


def by_pillow(blob: bytes, formats: tuple[str, ...]) -> Image.Image | None:
    """The upright picture; None if Pillow does not read it."""
    with suppress(Exception), Image.open(BytesIO(blob), formats=formats) as image:
        image.load()
        with suppress(Exception):
            return ImageOps.exif_transpose(image)
        return image
    return None


def _is_deep(blob: bytes, image: Image.Image) -> bool:
    """Whether it has 16-bit colour, of which Pillow keeps the high bytes."""
    if blob.startswith(b"\x89PNG"):
        return blob[24] == 16
    bits = getattr(image, "tag_v2", {}).get(258, (8,))
    return image.mode in ("RGB", "RGBA", "RGBX", "LA", "L") and (16 in bits or blob[:2] in (b"P6", b"P5"))


def compare_picture(
    pixels: np.ndarray, blob: bytes, value_range: str, sample: Sample | None, formats: tuple[str, ...]
) -> None:
    """Compares a square with the middle of the picture in the file; `sample` if the file is sound."""
    image = by_pillow(blob, formats)
    size_px = len(pixels)
    if image is None:
        numbers = _science_numbers(blob) if sample is None else sample.numbers
        if numbers is not None and min(numbers.shape[:2]) == size_px:
            with np.errstate(over="ignore"):
                numbers = numbers.astype(np.float32)
            _close(pixels, _levels(_middle(numbers), value_range, True), 1, "TIFF")
        return
    if sample is not None and sample.is_exact and min(image.size) == size_px and sample.suffix != ".gif":
        numbers = sample.numbers * 255 if image.mode == "1" else sample.numbers
        # alpha is compared with Pillow's below
        if numbers.ndim == 2 or numbers.shape[2] == 3:
            is_float = numbers.dtype.kind == "f"
            _close(pixels, _levels(_middle(numbers), value_range, is_float), 1, "the numbers written")
    if image.mode == "F" or image.mode.startswith("I"):
        numbers = np.asarray(image, np.float64)
        if min(image.size) != size_px:
            return
        expected = _levels(_middle(numbers), value_range, image.mode == "F")
        if image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(262) == 0:
            expected = 255 - expected
        _close(pixels, expected, 1, image.mode)
        return
    deep = _is_deep(blob, image)
    if deep and value_range != EXPLICIT:
        return
    has_alpha = image.has_transparency_data
    if (has_alpha or deep) and min(image.size) != size_px:
        return
    colour = image.convert("RGBA" if has_alpha else "RGB")
    side = min(colour.size)
    left, top = (colour.width - side) // 2, (colour.height - side) // 2
    colour = colour.crop((left, top, left + side, top + side)).resize(
        (size_px, size_px), Image.Resampling.BICUBIC
    )
    numbers = np.asarray(colour, np.float64)
    if has_alpha:
        share = numbers[..., 3:] / 255
        numbers = numbers[..., :3] * share + 255 * (1 - share)
    elif value_range == "0..1" and numbers.max() <= 1 and not deep:
        numbers = numbers * 255
    _close(pixels, numbers, 2 if has_alpha or deep else 0, image.mode)


def _middle(numbers: np.ndarray) -> np.ndarray:
    side = min(numbers.shape[:2])
    top, left = (numbers.shape[0] - side) // 2, (numbers.shape[1] - side) // 2
    return numbers[top : top + side, left : left + side]


def _levels(middle: np.ndarray, value_range: str, is_float: bool) -> np.ndarray:
    """Grey levels of numbers; a range from the values is that of the middle, so only for squares in a range."""
    low, high = usual_range(middle, is_float) if value_range == "auto" else map(float, value_range.split(".."))
    numbers = np.nan_to_num(middle.astype(np.float64), nan=low, posinf=high, neginf=low)
    if middle.dtype == np.uint8:
        low, high = (0, 1) if value_range == "0..1" and middle.max() <= 1 else (0, 255)
    return np.clip(np.rint((numbers - low) * (255 / (high - low))), 0, 255)


def usual_range(numbers: np.ndarray, is_float: bool) -> tuple[float, float]:
    """The range that numbers have by the documented rule."""
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    slack = 0.05 if is_float else 0
    if is_float and high <= 1 + slack and low >= -slack * high:
        return 0, 1
    if is_float and high <= 1 + slack and low >= -1 - slack:
        return -1, 1
    for top in _TOPS:
        if low >= -slack * high and high <= top * (1 + slack):
            return 0, top
    return low, high if high > low else low + 1


def _close(pixels: np.ndarray, expected: np.ndarray, tolerance: int, what: str) -> None:
    if expected.ndim == 2:
        expected = expected[..., None]
    off = float(np.abs(pixels.astype(np.float64) - np.rint(expected)).max())
    if off > tolerance:
        raise Wrong(f"{what}: {off:g} grey levels from the other reading")


def _science_numbers(blob: bytes) -> np.ndarray | None:
    """The numbers of a TIFF in one uncompressed strip; None of any other."""
    order = "<" if blob[:2] == b"II" else ">"
    with suppress(Exception):
        (at,) = struct.unpack_from(f"{order}I", blob, 4)
        (n,) = struct.unpack_from(f"{order}H", blob, at)
        tags = {}
        for i in range(n):
            tag, kind, count, value = struct.unpack_from(f"{order}HHII", blob, at + 2 + 12 * i)
            if kind == 4 and count == 1:
                tags[tag] = value
        letter = {1: "u", 2: "i", 3: "f"}[tags.get(339, 1)]
        shape = tags[257], tags[256], tags.get(277, 1)
        if tags.get(259, 1) == 1 and tags.get(277, 1) < 4:
            return np.frombuffer(
                blob, f"{order}{letter}{tags[258] // 8}", int(np.prod(shape)), tags[273]
            ).reshape(shape)
    return None


# --- uploads --------------------------------------------------------------------------------------


def _upload(rng: random.Random, folder: Path) -> None:
    side = rng.randint(1, 20)
    # a range from the values is that of all pixels, so that squares alone can be compared
    value_range = rng.choice(RANGES)
    sample = a_picture(rng, side, side if value_range == "auto" else 0, others=False)
    blob, name = altered(rng, sample.blob), a_word(rng) + sample.suffix
    formats = tuple(one for one in UPLOADED if one in readable().names)
    image = by_pillow(blob, formats)
    size_px = min(image.size) if image and max(image.size) <= 64 else min(sample.numbers.shape[:2])
    if rng.random() < 0.2:
        size_px = rng.randint(1, 40)
    pixels = prepare_upload(blob, name, size_px, value_range)
    same(pixels.shape, (size_px, size_px, 3), name)
    square = image is None or image.width == image.height
    if square or value_range != "auto":
        compare_picture(pixels, blob, value_range, sample if blob == sample.blob else None, formats)
    found, refused = from_uploads([(name, blob), ("again", blob), ("none", b"x" * 9)], size_px, value_range)
    same((len(found), len(refused)), (1, 1), "the same file twice, and one that is no picture")
    same(found.images[0].tobytes(), pixels.tobytes(), "in a set")


KINDS = {"upload": Kind(_upload, (DataError,))}
