"""Samplings step by step: ours, and the loop of diffusers' documentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from sdviz.diffusion import sampling
from sdviz.diffusion.guidance import GuidedNoise
from sdviz.diffusion.sampling import Sampler
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.unet import NoisePredictor

SCHEDULE = NoiseSchedule.linear(1000)
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
LABELS = torch.tensor([0, 2])
W = 2.0
# for each step x_t and the x_0 prediction, and at the end x_0 twice
Trajectory = list[tuple[torch.Tensor, torch.Tensor]]


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
