"""The samplers against diffusers' own schedulers, step by step on a real network.

`test_closed_form.py` has the cases whose answer is known on paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from sdviz.diffusion import sampling
from sdviz.diffusion.guidance import GuidedNoise
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.diffusion.sampling import Sampler
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.unet import NoisePredictor

SCHEDULE = NoiseSchedule.linear(1000)
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
LABELS = torch.tensor([0, 2])
W = 2.0

# for each step x_t and the x_0 prediction, and at the end x_0 twice
Trajectory = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def network(tiny_network: Callable[..., NoisePredictor]) -> NoisePredictor:
    network = tiny_network()
    # untrained, it predicts almost nothing: scaled up, its answers and the clipping both matter
    with torch.no_grad():
        network.unet.conv_out.weight.mul_(2)
    return network


def start(timesteps: Sequence[int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    return SCHEDULE.add_noise(x_0, torch.randn(2, 3, 8, 8, generator=generator), timesteps[0] + 1)


def ours(
    sampler: Sampler, network: NoisePredictor, timesteps: Sequence[int], clip: bool = True, eta: float = 0.0
) -> Trajectory:
    """Our trajectory; step noise is drawn in the order of the steps, as diffusers draws it."""
    generator = torch.Generator().manual_seed(7)
    trajectory: Trajectory = []
    eps_fn = GuidedNoise(network, LABELS, network.null_label, W, SCHEDULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "X_0_LIMIT", 1.0 if clip else math.inf)
        final = sampler(
            eps_fn,
            start(timesteps),
            timesteps,
            SCHEDULE,
            eta=eta,
            step_noise=lambda t: torch.randn(2, 3, 8, 8, generator=generator),
            callback=lambda step, x, x_0: trajectory.append((x.clone(), x_0.clone())),
        )
    return [*trajectory, (final, final)]


@torch.no_grad()
def theirs(
    scheduler: DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler,
    network: NoisePredictor,
    timesteps: Sequence[int],
    **options: object,
) -> Trajectory:
    """The loop that diffusers' documentation shows: two calls a step, guidance g = 1 + w, scheduler.step."""
    generator = torch.Generator().manual_seed(7)
    x = start(timesteps)
    trajectory: Trajectory = []
    for t in timesteps:
        steps = torch.full((2,), t)
        eps_uncond = network(x, steps, torch.full((2,), network.null_label))
        eps = eps_uncond + (1 + W) * (network(x, steps, LABELS) - eps_uncond)
        result = scheduler.step(eps, t, x, generator=generator, **options)
        # DPM-Solver keeps its prediction among its outputs
        x_0 = result.get("pred_original_sample")
        trajectory.append((x, x_0 if x_0 is not None else scheduler.model_outputs[-1]))
        x = result.prev_sample
    return [*trajectory, (x, x)]


def assert_same_trajectory(a: Trajectory, b: Trajectory, tolerance: float = 1e-4) -> None:
    assert len(a) == len(b)
    # the network does move the image: else any two samplers would agree
    assert (a[0][0] - a[-1][0]).abs().mean() > 0.05
    for step, ((x_a, x_0_a), (x_b, x_0_b)) in enumerate(zip(a, b, strict=True)):
        assert (x_a - x_b).abs().max() < tolerance, f"x_t differs at step {step}"
        assert (x_0_a - x_0_b).abs().max() < tolerance, f"the x_0 prediction differs at step {step}"


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("s", "k"), [(100, 10), (100, 7), (200, 15), (600, 8), (200, 1)])
def test_ddpm_is_diffusers_ddpm(network: NoisePredictor, s: int, k: int, clip: bool) -> None:
    timesteps = SCHEDULE.timesteps(s, k)
    scheduler = DDPMScheduler(**BETAS, variance_type="fixed_small", clip_sample=clip)
    scheduler.set_timesteps(timesteps=timesteps)
    a = ours(SAMPLERS["ddpm"], network, timesteps, clip=clip)
    assert_same_trajectory(a, theirs(scheduler, network, timesteps))


@pytest.mark.parametrize("clip", [True, False])
def test_ddpm_with_every_timestep_is_diffusers_ddpm(network: NoisePredictor, clip: bool) -> None:
    timesteps = SCHEDULE.timesteps(40, 40)
    scheduler = DDPMScheduler(**BETAS, variance_type="fixed_small", clip_sample=clip)
    scheduler.set_timesteps(timesteps=timesteps)
    # 1 - abar in float32 is off by up to 3e-4 of itself at t = 1, and steps of 1 show it (1e-4 in the image):
    # the same code with the same abar in float64 agrees a hundred times better
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    a = ours(SAMPLERS["ddpm"], network, timesteps, clip=clip)
    assert_same_trajectory(a, theirs(scheduler, network, timesteps), tolerance=5e-6)


# diffusers' DDIM takes no timesteps of one's own: these are the tails of its evenly spaced ("leading") lists
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("s", "k", "inference_steps"), [(100, 10, 90), (91, 10, 100), (20, 20, 1000)])
def test_ddim_is_diffusers_ddim(
    network: NoisePredictor, s: int, k: int, inference_steps: int, eta: float, clip: bool
) -> None:
    timesteps = SCHEDULE.timesteps(s, k)
    scheduler = DDIMScheduler(**BETAS, clip_sample=clip, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.set_timesteps(inference_steps)
    assert scheduler.timesteps[-k:].tolist() == timesteps
    a = ours(SAMPLERS["ddim"], network, timesteps, eta=eta, clip=clip)
    assert_same_trajectory(a, theirs(scheduler, network, timesteps, eta=eta))


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("s", "k"), [(100, 10), (100, 7), (400, 20), (50, 2), (200, 1)])
def test_dpmpp_2m_is_diffusers_multistep_solver(network: NoisePredictor, s: int, k: int, clip: bool) -> None:
    timesteps = SCHEDULE.timesteps(s, k)
    scheduler = DPMSolverMultistepScheduler(
        **BETAS,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        # its dynamic threshold, held to at most 1, is plain clipping to [-1,1]
        thresholding=clip,
        sample_max_value=1.0,
    )
    scheduler.set_timesteps(timesteps=timesteps)
    assert scheduler.timesteps.tolist() == timesteps
    a = ours(SAMPLERS["dpmpp_2m"], network, timesteps, clip=clip)
    assert_same_trajectory(a, theirs(scheduler, network, timesteps))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_says_whether_it_uses_eta(network: NoisePredictor, name: str) -> None:
    timesteps = SCHEDULE.timesteps(100, 4)
    without, half = (ours(SAMPLERS[name], network, timesteps, eta=eta) for eta in (0.0, 0.5))
    assert torch.equal(without[-1][0], half[-1][0]) != SAMPLERS[name].uses_eta


def test_clipping_matters_in_these_comparisons(network: NoisePredictor) -> None:
    timesteps = SCHEDULE.timesteps(400, 10)
    for sampler in SAMPLERS.values():
        clipped, free = (ours(sampler, network, timesteps, clip=clip) for clip in (True, False))
        assert (clipped[-1][0] - free[-1][0]).abs().max() > 1e-2
        assert all(x_0.abs().max() <= 1 for _, x_0 in clipped)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_network_call_a_timestep_and_callbacks_in_order(name: str) -> None:
    called: list[int] = []
    seen: list[int] = []

    def eps_fn(x: torch.Tensor, t: int) -> torch.Tensor:
        called.append(t)
        return 0.1 * x

    x = torch.full((1, 3, 2, 2), 0.5)
    kept = x.clone()
    SAMPLERS[name](
        eps_fn,
        x,
        [50, 20, 3],
        SCHEDULE,
        step_noise=lambda t: torch.ones(1, 3, 2, 2),
        callback=lambda step, x_t, x_0: seen.append(step),
    )
    assert called == [50, 20, 3]
    assert seen == [0, 1, 2]
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_timesteps_return_the_image(name: str) -> None:
    x = torch.randn(1, 3, 2, 2)
    assert torch.equal(SAMPLERS[name](lambda x, t: x, x, [], SCHEDULE), x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_is_the_x_0_prediction(name: str) -> None:
    predictions: list[torch.Tensor] = []
    final = SAMPLERS[name](
        lambda x, t: x * 0.3,
        torch.randn(2, 3, 2, 2),
        [400, 100, 7],
        SCHEDULE,
        step_noise=lambda t: torch.zeros(2, 3, 2, 2),
        callback=lambda step, x, x_0: predictions.append(x_0),
    )
    torch.testing.assert_close(final, predictions[-1], rtol=0, atol=1e-6)


def test_step_noise_is_asked_for_by_timestep_and_only_where_it_counts() -> None:
    asked: list[int] = []

    def step_noise(t: int) -> torch.Tensor:
        asked.append(t)
        return torch.zeros(1, 3, 2, 2)

    x = torch.zeros(1, 3, 2, 2)
    for name, eta, expected in (
        ("ddpm", 0.0, [50, 20]),
        ("ddim", 0.5, [50, 20]),
        ("ddim", 0.0, []),
        ("dpmpp_2m", 0.0, []),
    ):
        asked.clear()
        SAMPLERS[name](lambda x, t: x, x, [50, 20, 3], SCHEDULE, eta=eta, step_noise=step_noise)
        # none after the last step, which stands at abar = 1
        assert asked == expected, name


def test_noise_that_is_needed_and_not_given_is_refused() -> None:
    x = torch.zeros(1, 3, 2, 2)
    with pytest.raises(ValueError, match="step_noise is needed"):
        SAMPLERS["ddpm"](lambda x, t: x, x, [50, 20], SCHEDULE)
    with pytest.raises(ValueError, match="step_noise is needed"):
        SAMPLERS["ddim"](lambda x, t: x, x, [50, 20], SCHEDULE, eta=0.5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        ([10, 20], "fall strictly"),
        ([10, 10], "fall strictly"),
        ([1000, 5], r"0\.\.999"),
        ([5, -1], r"0\.\.999"),
    ],
)
def test_refuses_timesteps_that_do_not_fall(name: str, timesteps: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAMPLERS[name](lambda x, t: x, torch.zeros(1, 3, 2, 2), timesteps, SCHEDULE)
