from __future__ import annotations

import pytest
from diffusers import DDPMScheduler

from sdviz.diffusion.samplers import SAMPLERS
from sdviz.nn.unet import NoisePredictor
from tests.trajectories import BETAS, SCHEDULE, assert_same_trajectory, ours, theirs


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
