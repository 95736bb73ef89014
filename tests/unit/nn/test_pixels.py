from __future__ import annotations

import numpy as np
import pytest
import torch

from sdviz.nn.pixels import channels_first, scale, to_images, to_tensor


def test_every_grey_level_survives_the_way_there_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    x = to_tensor(images)
    assert (x.shape, x.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert (to_images(x) == images).all()


def test_channels_and_rows_keep_their_places() -> None:
    images = np.zeros((1, 4, 4, 3), np.uint8)
    images[0, 1, 2] = (255, 0, 51)
    x = to_tensor(images)
    assert x[0, :, 1, 2].tolist() == pytest.approx([1, -1, -0.6])
    assert (to_images(x) == images).all()


def test_values_beyond_the_range_are_clipped_not_wrapped() -> None:
    x = torch.tensor([-3.0, 3.0, 0.0]).reshape(1, 3, 1, 1)
    assert to_images(x).reshape(3).tolist() == [0, 255, 128]


def test_in_two_steps_it_is_the_same() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    pixels = channels_first(images)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 3, 4, 5))
    assert torch.equal(scale(pixels[[2, 0]]), to_tensor(images[[2, 0]]))
