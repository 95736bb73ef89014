from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sdviz.bundle import Bundle
from sdviz.bundle.generated import decode_pngs, encode_pngs, has_generated


def test_pictures_come_back_bit_by_bit(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(3)
    assert np.array_equal(decode_pngs(encode_pngs(images).to_pylist(), images.shape[1]), images)


def test_a_bundle_without_generated_images_says_so(tiny_bundle: Callable[..., Bundle]) -> None:
    assert not has_generated(tiny_bundle())
