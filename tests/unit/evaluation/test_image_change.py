from __future__ import annotations

import numpy as np
import pytest

from sdviz.evaluation import background_psnr, dilate, share_changed


def test_dilate_is_a_square_and_stops_at_the_border() -> None:
    masks = np.zeros((2, 7, 7), bool)
    masks[0, 3, 3] = masks[1, 0, 6] = True
    wide = dilate(masks, 2)
    expected = np.zeros((2, 7, 7), bool)
    expected[0, 1:6, 1:6] = True
    expected[1, :3, 4:] = True
    assert np.array_equal(wide, expected)
    assert np.array_equal(dilate(masks, 0), masks)
    assert masks.sum() == 2


def test_background_psnr_by_hand() -> None:
    original = np.full((3, 8, 8, 3), 100, np.uint8)
    changed = original.copy()
    masks = np.zeros((3, 8, 8), bool)
    masks[:, 4, 4] = True
    changed[0, 2:7, 2:7] = 0  # only where the mask widened by 2 px lies
    changed[1] += 10  # everywhere: 20 log10(255 / 10)
    changed[2, 0, 0, 0] += 30  # one channel of one of the 39 background pixels
    psnr = background_psnr(original, changed, masks)
    assert psnr[0] == np.inf
    assert psnr[1] == pytest.approx(28.1308, abs=1e-4)
    assert psnr[2] == pytest.approx(10 * np.log10(255**2 / (900 / 3 / 39)))


def test_no_background_is_nan_and_shapes_are_checked() -> None:
    image = np.zeros((1, 4, 4, 3), np.uint8)
    assert np.isnan(background_psnr(image, image, np.ones((1, 4, 4), bool))).all()
    with pytest.raises(ValueError, match="do not fit"):
        background_psnr(image, image, np.ones((2, 4, 4), bool))
    with pytest.raises(ValueError, match="radius_px -1"):
        dilate(np.ones((1, 4, 4), bool), -1)


def test_share_changed() -> None:
    assert share_changed(np.array([1, 2, 3, 4]), np.array([1, 0, 3, 0])) == 0.5
    with pytest.raises(ValueError, match="non-empty"):
        share_changed(np.array([], int), np.array([], int))
