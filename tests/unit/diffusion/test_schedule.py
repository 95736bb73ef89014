import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from sdviz.diffusion.schedule import NoiseSchedule


@pytest.fixture(scope="module")
def schedule() -> NoiseSchedule:
    return NoiseSchedule.linear(1000)


@pytest.mark.parametrize(
    ("start_timestep", "sigma"),
    [(50, 0.173), (80, 0.271), (100, 0.339), (150, 0.518), (200, 0.719), (300, 1.23), (500, 3.42)],
)
def test_sigma_at_the_papers_start_timesteps(
    schedule: NoiseSchedule, start_timestep: int, sigma: float
) -> None:
    assert float(f"{schedule.sigma(start_timestep):.3g}") == sigma


def test_alpha_bar_is_the_product_of_all_steps_up_to_s(schedule: NoiseSchedule) -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    for s in (1, 2, 100, 400, 1000):
        assert schedule.alpha_bar(s) == pytest.approx(np.prod(1 - betas[:s]), rel=2e-5)
        assert schedule.alpha_bar(s) == float(schedule.alphas_cumprod[s - 1])
    assert schedule.alpha_bar(0) == 1.0
    assert schedule.sigma(0) == 0.0


@pytest.mark.parametrize("length", [1, 10, 400, 1000])
def test_equals_diffusers(length: int) -> None:
    ours = NoiseSchedule.linear(length)
    theirs = DDPMScheduler(length, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    assert len(ours) == ours.num_train_timesteps == length
    torch.testing.assert_close(ours.betas, theirs.betas.double(), rtol=0, atol=0)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod.double(), rtol=0, atol=0)


def test_add_noise_equals_diffusers(schedule: NoiseSchedule) -> None:
    theirs = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(5, 3, 4, 4, generator=generator), torch.randn(5, 3, 4, 4, generator=generator)
    s = torch.tensor([1, 50, 100, 400, 1000])
    expected = theirs.add_noise(x_0, noise, s - 1)
    torch.testing.assert_close(schedule.add_noise(x_0, noise, s), expected, rtol=0, atol=1e-6)
    for row, one in enumerate(s.tolist()):
        for scalar in (one, np.int64(one), torch.tensor(one)):
            noised = schedule.add_noise(x_0[row : row + 1], noise[row : row + 1], scalar)
            torch.testing.assert_close(noised, expected[row : row + 1], rtol=0, atol=1e-6)


def test_no_noising_steps_leave_the_image_alone(schedule: NoiseSchedule) -> None:
    x_0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(schedule.add_noise(x_0, noise, 0), x_0)
    assert torch.equal(schedule.add_noise(x_0, noise, torch.tensor([0, 0])), x_0)


def test_add_noise_keeps_the_variance_of_unit_images(schedule: NoiseSchedule) -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(1, 100_000, generator=generator), torch.randn(1, 100_000, generator=generator)
    for s in (10, 100, 500, 1000):
        assert schedule.add_noise(x_0, noise, s).std().item() == pytest.approx(1, abs=0.01)


def test_nothing_a_caller_does_changes_it(schedule: NoiseSchedule) -> None:
    before = schedule.alpha_bar(1), float(schedule.betas[0])
    schedule.alphas_cumprod[0] = 0.5
    schedule.betas.zero_()
    assert (schedule.alpha_bar(1), float(schedule.betas[0])) == before
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        schedule.alphas_cumprod = torch.zeros(1000)  # type: ignore[misc]
    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert torch.equal(twin.alphas_cumprod, schedule.alphas_cumprod)


def test_timesteps_by_hand(schedule: NoiseSchedule) -> None:
    assert schedule.timesteps(100, 10) == [99, 88, 77, 66, 55, 44, 33, 22, 11, 0]
    assert schedule.timesteps(5, 5) == [4, 3, 2, 1, 0]
    # 3.5 and 1.5: numpy rounds halves to the even neighbour
    assert schedule.timesteps(8, 3) == [7, 4, 0]
    assert schedule.timesteps(4, 3) == [3, 2, 0]


def test_timesteps_equal_numpys_rounded_linspace(schedule: NoiseSchedule) -> None:
    for s in range(401):
        for k in range(1, 51):
            ours = schedule.timesteps(s, k)
            assert ours == np.round(np.linspace(s - 1, 0, min(k, s))).astype(int).tolist()
            assert all(a > b for a, b in zip(ours, ours[1:], strict=False))
            assert all(type(t) is int for t in ours)


def test_timesteps_at_the_edges(schedule: NoiseSchedule) -> None:
    assert schedule.timesteps(0, 1) == schedule.timesteps(0, 50) == []
    assert schedule.timesteps(100, 1) == [99]
    assert schedule.timesteps(1, 1) == schedule.timesteps(1, 7) == [0]
    assert schedule.timesteps(6, 6) == schedule.timesteps(6, 7) == schedule.timesteps(6, 1000)
    assert schedule.timesteps(1000, 2) == [999, 0]
    assert schedule.timesteps(np.int64(10), np.int64(2)) == [9, 0]


@pytest.mark.parametrize("bad", [-1, 1001, 2.5, 100.0, float("nan"), float("inf"), True, "100", None])
def test_refuses_a_start_timestep_out_of_range(schedule: NoiseSchedule, bad: object) -> None:
    x = torch.zeros(1, 3, 2, 2)
    for use in (
        lambda: schedule.sigma(bad),  # type: ignore[arg-type]
        lambda: schedule.timesteps(bad, 10),  # type: ignore[arg-type]
        lambda: schedule.add_noise(x, x, bad),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=rf"S = {bad!r} is (outside 0\.\.1000|not a whole number)"):
            use()


@pytest.mark.parametrize("bad", [[-1, 5], [5, 1001], [5], [5, 5, 5], [2.5, 5.0], [[5, 5]], [True, False]])
def test_refuses_a_vector_of_start_timesteps_out_of_range(schedule: NoiseSchedule, bad: list) -> None:
    x = torch.zeros(2, 3, 2, 2)
    with pytest.raises(ValueError, match=r"S must be \(2,\) whole numbers in 0\.\.1000"):
        schedule.add_noise(x, x, torch.tensor(bad))


def test_refuses_noise_of_another_shape(schedule: NoiseSchedule) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and noise \(1, 3, 4, 4\)"):
        schedule.add_noise(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4), 5)


@pytest.mark.parametrize("bad", [0, -3, 2.5, 10.0, True])
def test_refuses_a_number_of_steps_out_of_range(schedule: NoiseSchedule, bad: object) -> None:
    with pytest.raises(ValueError, match="num_inference_steps"):
        schedule.timesteps(100, bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("length", "start", "end"), [(0, 1e-4, 0.02), (10, 0.0, 0.02), (10, 0.02, 1e-4), (10, 1e-4, 1.0)]
)
def test_refuses_a_schedule_that_is_none(length: int, start: float, end: float) -> None:
    with pytest.raises(ValueError, match="is not at least 1|are not 0 < beta_start"):
        NoiseSchedule.linear(length, start, end)
