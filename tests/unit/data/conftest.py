from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 (24,40,3), smooth, with four corners that differ."""
    y, x = np.mgrid[0:24, 0:40]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 3], axis=-1).astype(np.uint8)


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Bytes of an array or Pillow image in some format."""

    def to_bytes(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401
        out = BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
        return out.getvalue()

    return to_bytes


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Writes a PNG by hand, for what Pillow cannot write; `pixels` may be missing."""

    def write(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")

    return write
