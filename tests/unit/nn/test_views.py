from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from sdviz.config.nodes import MILD_VIEWS, ViewsConfig
from sdviz.nn.views import _jitter, random_views

pytestmark = pytest.mark.usefixtures("one_thread")

# nothing at all; each test turns on what it is about
OFF: dict[str, object] = {
    "area": (1.0, 1.0),
    "max_shift": 0.0,
    "random_flip": False,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "jitter_share": 1.0,
    "grey_share": 0.0,
}
EVERYTHING = ViewsConfig(
    area=(0.3, 1.5),
    max_tilt_deg=20,
    colour_matrix_share=0.5,
    colour_field=0.5,
    noise=0.1,
    grey_share=0.3,
    blur_share=0.5,
)


def views(x: torch.Tensor, seed: int = 0, **settings: object) -> torch.Tensor:
    config = ViewsConfig(**(OFF | settings))  # type: ignore[arg-type]
    return random_views(x, config, torch.Generator().manual_seed(seed))


def pictures(n: int, size: int = 8, seed: int = 0, reach: float = 1.0) -> torch.Tensor:
    return (torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * reach


def ramps(n: int, size: int = 16) -> torch.Tensor:
    """Each pixel holds its own place: x in channel 0, y in channel 1, both in -1..1 by the window's measure."""
    at = (torch.arange(size) * 2 + 1) / size - 1
    one = torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.zeros(size, size)])
    return one.expand(n, 3, size, size).clone()


# --- all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [ViewsConfig(), MILD_VIEWS, EVERYTHING], ids=["default", "mild", "everything"]
)
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (12, 20)])
def test_views_keep_shape_and_range(config: ViewsConfig, size: tuple[int, int]) -> None:
    x = torch.rand(20, 3, *size) * 2 - 1
    before = x.clone()
    y = random_views(x, config, torch.Generator().manual_seed(0))
    assert (y.shape, y.dtype) == (x.shape, torch.float32)
    assert torch.isfinite(y).all()
    assert -1 <= y.min() and y.max() <= 1
    assert torch.equal(x, before)


def test_the_generator_decides_and_nothing_else() -> None:
    x = pictures(6)
    first = random_views(x, EVERYTHING, torch.Generator().manual_seed(3))
    torch.rand(9)
    assert torch.equal(first, random_views(x, EVERYTHING, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, random_views(x, EVERYTHING, torch.Generator().manual_seed(4)))
    # the generator move on: the next view is another one
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(first, random_views(x, EVERYTHING, generator))
    assert not torch.equal(first, random_views(x, EVERYTHING, generator))


def test_each_image_is_changed_by_itself() -> None:
    x = pictures(1).expand(30, 3, 8, 8)
    y = random_views(x, EVERYTHING, torch.Generator().manual_seed(0))
    assert len({tuple(one.flatten().tolist()) for one in y}) == 30


def test_an_image_s_view_does_not_depend_on_the_other_images() -> None:
    # it does depend on its row and on how many rows there are: they share the generator
    x, other = pictures(5), pictures(5, seed=1)
    other[2] = x[2]
    a, b = (random_views(one, EVERYTHING, torch.Generator().manual_seed(0)) for one in (x, other))
    torch.testing.assert_close(a[2], b[2], rtol=0, atol=1e-6)
    assert not torch.allclose(a[1], b[1], atol=1e-2)


def test_nothing_on_changes_nothing() -> None:
    x = pictures(5, 11)
    torch.testing.assert_close(views(x), x, rtol=0, atol=1e-5)


# --- the window -------------------------------------------------------------------------------------


def test_a_flip_is_left_and_right_for_about_half() -> None:
    x = pictures(1, 9).expand(400, 3, 9, 9)
    y = views(x, random_flip=True)
    kept = (y - x).abs().amax(dim=(1, 2, 3)) < 1e-4
    flipped = (y - x.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (kept ^ flipped).all()
    assert 160 < int(flipped.sum()) < 240


@pytest.mark.parametrize(("low", "high"), [(0.25, 1.0), (0.36, 0.36)])
def test_the_window_has_the_area_that_is_asked_for(low: float, high: float) -> None:
    y = views(ramps(300), area=(low, high))
    # neighbouring pixels lie zoom * 2 / 16 apart
    zooms = (y[:, 0, 8, 9] - y[:, 0, 8, 8]) * 16 / 2
    torch.testing.assert_close((y[:, 1, 9, 8] - y[:, 1, 8, 8]) * 16 / 2, zooms, rtol=0, atol=1e-4)
    areas = zooms**2
    assert low - 1e-3 <= areas.min() and areas.max() <= high + 1e-3
    if low < high:  # uniform
        assert areas.mean() == pytest.approx((low + high) / 2, abs=0.04)
        assert areas.max() > high - 0.03 and areas.min() < low + 0.03
    # without a shift it stays in the middle
    assert y[:, :2].mean(dim=(2, 3)).abs().max() < 1e-4


@pytest.mark.parametrize("max_shift", [0.5, 1.0])
def test_the_window_moves_to_the_border_at_most(max_shift: float) -> None:
    y = views(ramps(300), area=(0.25, 0.25), max_shift=max_shift)
    centres = y[:, :2].mean(dim=(2, 3))
    reach = max_shift * 0.5  # half the picture is free on either side of a window of half its width
    assert centres.abs().max() <= reach + 1e-4
    for one in centres.T:
        assert one.max() > 0.9 * reach and one.min() < -0.9 * reach
    assert abs(np.corrcoef(centres.T.numpy())[0, 1]) < 0.2
    # a window over the whole picture has nowhere to go
    torch.testing.assert_close(views(ramps(3), max_shift=max_shift), ramps(3), rtol=0, atol=1e-4)


def test_an_area_above_one_mirrors_what_lies_past_the_border() -> None:
    x = pictures(2, 8)
    y = views(x, area=(4.0, 4.0))
    # the picture at half its size, between its mirror images
    inside = F.avg_pool2d(x, 2)
    torch.testing.assert_close(y[:, :, 2:6, 2:6], inside, rtol=0, atol=1e-4)
    torch.testing.assert_close(y[:, :, 2:6, 0:2], inside[..., :2].flip(-1), rtol=0, atol=1e-4)
    torch.testing.assert_close(y[:, :, 6:8, 2:6], inside[:, :, 2:].flip(-2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("flip", [False, True])
def test_a_tilt_turns_by_at_most_so_much_both_ways(flip: bool) -> None:
    y = views(ramps(300), max_tilt_deg=30.0, random_flip=flip)
    # how the place changes from the middle pixel to its neighbours, in pixels
    right = (y[:, :2, 8, 8] - y[:, :2, 8, 7]) * 8
    down = (y[:, :2, 8, 8] - y[:, :2, 7, 8]) * 8
    side = torch.where(right[:, 0] < 0, -1.0, 1.0)
    assert (side == 1).all() or flip
    right = right * side[:, None]
    for step in (right, down):
        torch.testing.assert_close(step.norm(dim=1), torch.ones(300), rtol=0, atol=1e-3)
    torch.testing.assert_close((right * down).sum(1), torch.zeros(300), rtol=0, atol=1e-3)
    degrees = torch.rad2deg(torch.atan2(right[:, 1], right[:, 0]))
    assert -30.01 <= degrees.min() < -27 and 27 < degrees.max() <= 30.01
    assert degrees.mean().abs() < 3


# --- colours ----------------------------------------------------------------------------------------


def test_brightness_is_a_factor_on_what_shines() -> None:
    x = pictures(200, 4, reach=0.4)
    y = views(x, brightness=0.3)
    factors = (y + 1) / (x + 1)
    one_each = factors[:, 0, 0, 0]
    torch.testing.assert_close(factors, one_each[:, None, None, None].expand_as(x), rtol=0, atol=1e-4)
    assert 0.7 <= one_each.min() < 0.75 and 1.25 < one_each.max() <= 1.3001
    assert one_each.mean() == pytest.approx(1, abs=0.05)


def test_contrast_is_a_factor_about_each_images_own_mean() -> None:
    x = pictures(200, 4, reach=0.4) + torch.linspace(-0.3, 0.3, 200)[:, None, None, None]
    y = views(x, contrast=0.3)
    means = x.mean(dim=(1, 2, 3))
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), means, rtol=0, atol=1e-4)
    factors = y.std(dim=(1, 2, 3)) / x.std(dim=(1, 2, 3))
    assert 0.6999 <= factors.min() < 0.75 and 1.25 < factors.max() <= 1.3001
    torch.testing.assert_close(
        y - means[:, None, None, None],
        (x - means[:, None, None, None]) * factors[:, None, None, None],
        rtol=0,
        atol=1e-4,
    )


def test_saturation_is_a_factor_about_each_pixels_grey() -> None:
    x = pictures(200, 4, reach=0.4)
    y = views(x, saturation=0.5)
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(y.mean(1, keepdim=True), grey, rtol=0, atol=1e-4)
    factors = (y - grey).flatten(1).norm(dim=1) / (x - grey).flatten(1).norm(dim=1)
    assert 0.4999 <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5001
    torch.testing.assert_close(y - grey, (x - grey) * factors[:, None, None, None], rtol=0, atol=1e-4)


def test_hue_turns_colours_about_the_grey_axis() -> None:
    x = pictures(300, 4, reach=0.3)
    x[:, :, 0, 0] = 0.25  # a grey pixel
    y = views(x, hue=0.25)
    assert (y[:, :, 0, 0] - 0.25).abs().max() < 1e-5
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(y.mean(1, keepdim=True), grey, rtol=0, atol=1e-5)
    torch.testing.assert_close((y - grey).norm(dim=1), (x - grey).norm(dim=1), rtol=0, atol=1e-5)
    a, b = (x - grey)[:, :, 1, 1], (y - grey)[:, :, 1, 1]
    axis = torch.full((3,), 1 / math.sqrt(3))
    turns = torch.atan2((torch.cross(a, b, dim=1) * axis).sum(1), (a * b).sum(1)) / (2 * math.pi)
    assert -0.2501 <= turns.min() < -0.23 and 0.23 < turns.max() <= 0.2501
    # one turn for all pixels of an image
    c, d = (x - grey)[:, :, 2, 3], (y - grey)[:, :, 2, 3]
    again = torch.atan2((torch.cross(c, d, dim=1) * axis).sum(1), (c * d).sum(1)) / (2 * math.pi)
    torch.testing.assert_close(turns, again, rtol=0, atol=1e-3)


def test_a_third_of_a_circle_of_hue_turns_red_into_green_or_blue() -> None:
    red = torch.tensor([0.5, -0.5, -0.5]).view(1, 3, 1, 1)
    for draw, expected in ((1.0, [-0.5, 0.5, -0.5]), (-1.0, [-0.5, -0.5, 0.5])):
        draws = torch.tensor([0.0, 0.0, 0.0, draw]).view(1, 4, 1, 1, 1)
        config = ViewsConfig(**(OFF | {"hue": 1 / 3}))  # type: ignore[arg-type]
        assert _jitter(red, config, draws).flatten().tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_jitter_leaves_the_other_views_alone(share: float) -> None:
    x = pictures(400, 4, reach=0.4)
    y = views(x, jitter_share=share, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    changed = (y - x).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert float(changed.float().mean()) == pytest.approx(share, abs=0.06)


def colour_matrices(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The linear map over colours that takes each image's pixels of x to those of y, float (N,3,3)."""
    return torch.linalg.lstsq(x.flatten(2).mT, y.flatten(2).mT).solution.mT


def test_the_colour_matrix_is_orthogonal_and_of_every_kind() -> None:
    x = pictures(2000, 4, reach=0.5)  # so near to mid-grey that nothing is cut off
    y = views(x, colour_matrix_share=1.0)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=0, atol=1e-4)
    q = colour_matrices(x, y)
    torch.testing.assert_close(q @ q.mT, torch.eye(3).expand(2000, 3, 3), rtol=0, atol=1e-3)
    determinants = torch.linalg.det(q)
    assert 900 < int((determinants < 0).sum()) < 1100  # reflections and rotations alike
    # uniform over the group: no direction is preferred, and every entry has variance 1/3
    assert q.mean(0).abs().max() < 0.06
    torch.testing.assert_close(q.square().mean(0), torch.full((3, 3), 1 / 3), rtol=0, atol=0.04)
    some = views(x, colour_matrix_share=0.25)
    changed = (some - x).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert float(changed.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_the_colour_field_is_smooth_and_differs_over_the_picture() -> None:
    x = torch.zeros(300, 3, 31, 31)
    y = views(x, colour_field=0.1)
    # a grid of 4x4 values, straight between them: nothing bends inside a cell of 10 pixels
    inside = y[..., 1:10, 1:10]
    bends = inside[..., 2:] - 2 * inside[..., 1:-1] + inside[..., :-2]
    assert bends.abs().max() < 1e-5
    assert y.std(dim=(2, 3)).min() > 0
    # as strong as asked at most: standard normal values times 0..0.1
    corners = y[..., ::10, ::10]
    strengths = corners.flatten(1).std(1)
    assert 0.1 < strengths.max() < 0.16 and strengths.min() < 0.01
    assert strengths.mean() == pytest.approx(0.05, abs=0.01)
    assert abs(float(corners.mean())) < 0.005


def test_grey_views_are_luma() -> None:
    x = pictures(400, 4)
    y = views(x, grey_share=0.3)
    grey = (y - y[:, :1]).abs().amax(dim=(1, 2, 3)) == 0
    assert float(grey.float().mean()) == pytest.approx(0.3, abs=0.07)
    luma = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(y[grey, 0], luma[grey], rtol=0, atol=1e-5)
    torch.testing.assert_close(y[~grey], x[~grey], rtol=0, atol=1e-5)


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    x = pictures(50, 16, reach=0.5)
    added = views(x, noise=0.05) - x
    assert float(added.std()) == pytest.approx(0.05, rel=0.03)
    assert abs(float(added.mean())) < 0.001
    assert abs(float((added[:, :, :, 1:] * added[:, :, :, :-1]).mean())) < 1e-4


def test_blur_is_a_gaussian_of_a_deviation_up_to_the_largest() -> None:
    # one bright pixel spreads to a Gaussian, whose second moment is its variance
    x = torch.zeros(200, 3, 31, 31)
    x[:, :, 15, 15] = 1
    y = views(x, blur_share=0.6, max_blur_px=2.0)
    torch.testing.assert_close(y.sum((2, 3)), torch.ones(200, 3), rtol=0, atol=1e-4)
    at = torch.arange(31.0) - 15
    across, along = ((y.sum(axis) * at.square()).sum(2)[:, 0] for axis in (2, 3))
    torch.testing.assert_close(across, along, rtol=0, atol=1e-4)
    is_blurred = across > 1e-4
    assert float(is_blurred.float().mean()) == pytest.approx(0.6, abs=0.1)
    sigma = across[is_blurred].sqrt()
    # uniform in 0..2; below a third of a pixel, the grid swallows a Gaussian
    assert float(sigma.max()) < 2.0 and float((sigma > 1).float().mean()) == pytest.approx(0.5, abs=0.12)
    # against the closed form, pixel by pixel
    row = int(across.argmax())
    weights = torch.exp(-at.square() / (2 * across[row]))
    weights /= weights.sum()
    torch.testing.assert_close(y[row, 0], weights[:, None] * weights[None, :], rtol=0, atol=2e-3)


def test_blur_keeps_a_flat_picture_and_small_ones_are_no_fault() -> None:
    flat = torch.full((20, 3, 4, 4), 0.3)
    torch.testing.assert_close(views(flat, blur_share=1.0, max_blur_px=3.0), flat, rtol=0, atol=1e-5)


# --- configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"area": (0.0, 1.0)}, r"area \[0.0, 1.0\] is not \[low, high\] with 0 < low <= high <= 4"),
        ({"area": (0.5, 0.2)}, r"area \[0.5, 0.2\] is not"),
        ({"area": (0.5, 4.5)}, r"area \[0.5, 4.5\] is not"),
        ({"area": (0.5,)}, "area"),
        ({"area": (0.5, float("nan"))}, "area"),
        ({"max_shift": 1.5}, "max_shift"),
        ({"max_tilt_deg": -1.0}, "max_tilt_deg"),
        ({"brightness": 1.0}, "brightness"),
        ({"hue": 0.6}, "hue"),
        ({"colour_matrix_share": 1.1}, "colour_matrix_share"),
        ({"colour_field": -0.1}, "colour_field"),
        ({"noise": -0.1}, "noise"),
        ({"blur_share": 1.1}, "blur_share"),
        ({"max_blur_px": 0.0}, "max_blur_px"),
        ({"gray_share": 0.1}, "gray_share"),
    ],
)
def test_views_that_cannot_be_are_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        ViewsConfig(**settings)  # type: ignore[arg-type]
