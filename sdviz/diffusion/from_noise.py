"""Generates images from pure noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..nn.randomness import image_noise
from .guidance import GuidedNoise, NoisePrediction
from .samplers import SAMPLERS
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
) -> torch.Tensor:
    """Samples x_0, float32 (N,3,H,W), from pure noise x_T under labels int64 (N,).

    Args:
        model: Trained on every timestep of the schedule.
        ids: str (N,), fix the noise of each image.

    Raises:
        ValueError: Another number of ids than of labels, or K below 1.
    """
    if len(ids) != len(class_labels):
        raise ValueError(f"{len(ids)} ids, but {len(class_labels)} labels")
    # 1. x_T ~ N(0, I), as abar_T is nearly 0 (Ho et al. 2020, Algorithm 2)
    x = image_noise(ids, (3, image_size, image_size), 0, "start").to(class_labels.device)
    # 2. DDIM down to x_0, guided by Eq. 3
    guided = GuidedNoise(model, class_labels, null_label, guidance_scale, schedule)
    timesteps = schedule.timesteps(len(schedule), num_inference_steps)
    return SAMPLERS["ddim"](guided, x, timesteps, schedule)
