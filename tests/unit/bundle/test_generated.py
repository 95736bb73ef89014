from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sdviz.bundle import Bundle, BundleError
from sdviz.bundle.generated import decode_png, decode_pngs, encode_pngs, has_generated


def test_pictures_come_back_bit_by_bit(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(3)
    assert np.array_equal(decode_pngs(encode_pngs(images).to_pylist(), images.shape[1]), images)


def test_a_bundle_without_generated_images_says_so(tiny_bundle: Callable[..., Bundle]) -> None:
    assert not has_generated(tiny_bundle())


def png_of(pixels: np.ndarray, **options: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, options.get("kind", "PNG"))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (None, "a picture in the bundle is empty"),
        (b"", "is empty"),
        (b"no picture", "is not a picture"),
        (
            png_of(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))[:120],
            "is cut short or damaged",
        ),
        (png_of(np.zeros((8, 8, 3), np.uint8), kind="BMP"), "is not a picture"),
        (png_of(np.zeros((4, 8, 3), np.uint8)), "is not one of 8 bits and 8 x 8 px"),
        (png_of(np.zeros((8, 8), np.uint16)), "is not one of 8 bits and 8 x 8 px"),
        (png_of(np.zeros((3_000, 3_000), np.uint8)), "is 3000 x 3000 px"),
    ],
)
def test_a_picture_that_is_none_of_the_bundles_is_refused(blob: bytes | None, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        decode_png(blob, 8)
