from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sdviz.data.decode import DecodeError, open_picture
from sdviz.data.formats import readable
from sdviz.data.tiff import plain_tiff


def tiff(values: np.ndarray, order: str = "<", deflate: bool = False, strips: int = 1, **other: int) -> bytes:
    """A TIFF of any numbers (H,W,C) in strips, as scientific programs write it; `other` replaces tags."""
    height, width, bands = values.shape
    depth, form = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    parts = [part.astype(values.dtype.newbyteorder(order)).tobytes() for part in np.array_split(values, strips)]
    parts = [zlib.compress(part) if deflate else part for part in parts]
    tags = {
        256: [width], 257: [height], 258: [depth] * bands, 259: [8 if deflate else 1], 262: [1],
        273: [0] * strips, 277: [bands], 278: [height // strips], 279: list(map(len, parts)),
        339: [form] * bands,
    }  # fmt: skip
    tags |= {int(key[1:]): [value] for key, value in other.items()}
    tags = dict(sorted(tags.items()))
    at = 8 + 2 + 12 * len(tags) + 4
    rest = {tag: 4 * len(one) for tag, one in tags.items() if len(one) > 1}
    body = at + sum(rest.values())
    tags[273] = [body + sum(map(len, parts[:i])) for i in range(strips)]
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    long = b""
    for tag, one in tags.items():
        packed = struct.pack(f"{order}{len(one)}I", *one)
        value = packed if len(one) == 1 else struct.pack(f"{order}I", at + len(long))
        long += b"" if len(one) == 1 else packed
        out += struct.pack(f"{order}HHI", tag, 4, len(one)) + value
    return out + struct.pack(f"{order}I", 0) + long + b"".join(parts)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "uint64"])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("how", [("<", False, 1), (">", False, 3), ("<", True, 2)])
def test_numbers_of_other_kinds_are_read(kind: str, bands: int, how: tuple[str, bool, int]) -> None:
    values = np.random.default_rng(0).integers(0, 200, (6, 5, bands)).astype(kind)
    assert np.array_equal(plain_tiff(tiff(values, *how), 100), values)
    picture = open_picture(tiff(values, *how), readable().names)
    assert isinstance(picture.pixels, np.ndarray) and np.array_equal(picture.pixels, values)
    assert picture.stored_size == (5, 6)


def test_pillow_opens_what_it_can() -> None:
    stream = BytesIO()
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(stream, "TIFF")
    assert open_picture(stream.getvalue(), readable().names).mode == "float32"


def test_what_is_damaged_or_too_large_or_of_another_kind() -> None:
    values = np.zeros((6, 5, 1), np.float64)
    whole = tiff(values)
    for other in ({"t259": 5}, {"t317": 2}, {"t277": 2}, {"t339": 6}, {"t258": 8}):
        assert plain_tiff(tiff(values, **other), 100) is None
    for blob, most in ((whole[:-1], 100), (whole, 29), (tiff(values, t256=2**31), 2**26)):
        with pytest.raises(ValueError):
            plain_tiff(blob, most)
        with pytest.raises(DecodeError, match="^is a damaged TIFF, or of a kind that is not read$"):
            open_picture(blob, readable().names, most)
    bomb = tiff(values, deflate=True)
    assert plain_tiff(bomb, 100) is not None
