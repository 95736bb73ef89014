from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from sdviz.data.found import Found
from sdviz.data.imageset import DataError, OnError
from sdviz.data.stack import ImageStack, Reading, extremes_of

Encode = Callable[..., bytes]


def reading(on_error: OnError = "raise") -> Reading:
    return Reading(8, on_error, True, None, "crop")


def test_a_stack_leaves_out_bad_pictures_or_refuses_all(encode: Encode) -> None:
    def stack(on_error: OnError) -> ImageStack:
        made = ImageStack(4, reading(on_error), lambda: iter(()))
        made.add(0, "a", encode(Image.new("RGB", (8, 8), (9, 9, 9)), "JPEG"))
        made.add(1, "b\nc", b"text")
        made.add(2, "d", encode(Image.new("RGB", (8, 8), (70, 80, 90))))
        made.refuse("e", "holds no bytes")
        return made

    assert stack("raise").jpeg_share == 0.5
    with pytest.warns(
        UserWarning, match="set: 2 of 4 images cannot be used: b c is not a picture; .* left out"
    ):
        images, rows = stack("skip").finish("set")
    assert rows.tolist() == [0, 2] and images.shape == (2, 8, 8, 3) and (images[1] == (70, 80, 90)).all()
    with pytest.raises(DataError, match="2 of 4 images .*; e holds no bytes$"):
        stack("raise").finish("set")
    none = ImageStack(1, reading("skip"), lambda: iter(()))
    assert none.jpeg_share == 0.0
    none.add(0, "x", b"")
    with pytest.raises(DataError, match="1 of 1 images cannot be used: x is empty"):
        none.finish("set")


def test_a_file_of_several_pictures_is_told(encode: Encode) -> None:
    pages = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (255, 0)]
    stack = ImageStack(1, reading(), lambda: iter(()))
    stack.add(0, "a", encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert "1 files hold several pictures: the first of each is read" in stack.found(Found()).warnings
    assert (stack.images == 255).all()


def test_a_stack_tells_what_was_in_it(encode: Encode) -> None:
    deep = [encode(Image.fromarray(np.full((4, 6), level, np.uint16))) for level in (100, 3000)]
    stack = ImageStack(3, reading("skip"), lambda: extremes_of([b"text", *deep]))
    stack.add(0, "a", deep[0])
    stack.add(1, "caf\udce9", b"text")
    stack.add(2, "c", encode(Image.new("L", (5, 5), 200)))
    found = stack.found(Found(unreadable=("locked",), splits={"all": 3}, warnings=("one line",)))
    # 3000 is in the set, though it is not among the pictures that were read
    assert found.value_range == "0..4095, 0..255" and stack.images[0, 0, 0].tolist() == [6, 6, 6]
    assert found.sizes == {"6x4": 1, "5x5": 1} and found.modes == {"I;16": 1, "L": 1}
    assert found.unreadable == ("locked", "caf%E9") and found.splits == {"all": 3}
    assert found.warnings[0] == "one line" and "several depths" in found.warnings[1]
