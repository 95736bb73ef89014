from __future__ import annotations

import pytest
from diffusers import DDIMScheduler

from sdviz.diffusion.samplers import SAMPLERS
from sdviz.nn.unet import NoisePredictor
from tests.trajectories import BETAS, SCHEDULE, assert_same_trajectory, ours, theirs


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
