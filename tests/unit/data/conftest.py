from __future__ import annotations

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
