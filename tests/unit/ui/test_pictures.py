from __future__ import annotations

import numpy as np

from sdviz.ui.pictures import HEAT_MAX, contact_sheet, difference, enlarge, heat_map


def test_difference_is_the_largest_channel_over_the_range() -> None:
    a, b = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    b[0, 1] = (10, 255, 3)
    assert difference(a, b).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert np.array_equal(difference(a, b), difference(b, a))


def test_heat_map_rises_in_lightness_and_saturates() -> None:
    colours = heat_map(np.array([0, 0.1, 0.2, 0.35, HEAT_MAX, 1.0])).astype(float)
    lightness = colours @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness[:5]) > 0).all()
    assert (colours[4] == colours[5]).all()


def test_enlarge_repeats_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    big = enlarge(image, 3)
    assert big.shape == (6, 6, 3)
    assert np.array_equal(big[::3, ::3], image)
    assert (big[:3, 3:] == image[0, 1]).all()


def test_a_contact_sheet_enlarges_large_pictures_less() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    sheet = contact_sheet([("a", image)], ["x"], "made by a test")
    assert np.array_equal(sheet[8:136:2, 118:246:2], image[0])


def test_contact_sheet_holds_every_picture_unscaled_but_by_whole_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    sheet = contact_sheet([("a", images), ("b", images[::-1])], ["x", "y", "z"], "made by a test")
    for i in range(3):
        left = 118 + i * 136
        assert np.array_equal(sheet[8:136:4, left : left + 128 : 4], images[i])
        assert np.array_equal(sheet[144:272:4, left : left + 128 : 4], images[2 - i])
