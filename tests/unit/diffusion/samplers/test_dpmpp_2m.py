from __future__ import annotations

import pytest
from diffusers import DPMSolverMultistepScheduler

from sdviz.diffusion.samplers import SAMPLERS
from sdviz.nn.unet import NoisePredictor
from tests.trajectories import BETAS, SCHEDULE, assert_same_trajectory, ours, theirs


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
