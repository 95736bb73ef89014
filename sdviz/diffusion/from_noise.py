"""Images out of nothing but noise: the network's own, with no image to begin from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from ..nn.randomness import image_noise
from .guidance import GuidedNoise, NoisePrediction
from .samplers import STEPS, Callback, run_steps
from .schedule import NoiseSchedule


def sample_from_noise(
    model: NoisePrediction,
    schedule: NoiseSchedule,
    class_labels: torch.Tensor,
    ids: Sequence[str],
    image_size: int,
    null_label: int,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    solver: str = "ddim",
    seed: int = 0,
    callback: Callback | None = None,
) -> torch.Tensor:
    """Samples from x_T, which is noise alone, down to x_0, under the given labels.

    Only a network that was trained on every timestep of the schedule makes images of it.

    Args:
        model: The noise predictor, on the device of `class_labels`.
        schedule: Its noise schedule; sampling begins at its end, T.
        class_labels: int64 (N,), the condition of each image.
        ids: Of the images, N: with the seed they fix the noise of each, whatever batch it is in.
        image_size: Height and width in pixels.
        null_label: The model's null token.
        num_inference_steps: K, network calls from x_T to x_0.
        guidance_scale: w of Eq. 3.
        solver: A name in `SAMPLERS`.
        seed: The user's seed.
        callback: (step, x_t, x_0 prediction) for each step.

    Returns:
        float32 (N,3,H,W), x_0.

    Raises:
        ValueError: Another number of ids than of labels, or K below 1.
    """
    if len(ids) != len(class_labels):
        raise ValueError(f"{len(ids)} ids, but {len(class_labels)} labels")
    shape, device = (3, image_size, image_size), class_labels.device

    def step_noise(t: int) -> torch.Tensor:
        return image_noise(ids, shape, seed, f"step {t}").to(device)

    # 1. abar_T is nearly 0, so that x_T is taken for standard normal (Ho et al. 2020, Algorithm 2)
    x = image_noise(ids, shape, seed, "start").to(device)
    # 2. all the way down, guided by Eq. 3
    steps = partial(STEPS[solver], x, schedule.timesteps(len(schedule), num_inference_steps), schedule)
    guided = GuidedNoise(model, class_labels, null_label, guidance_scale, schedule)
    return run_steps(steps(step_noise=step_noise, callback=callback), guided)
