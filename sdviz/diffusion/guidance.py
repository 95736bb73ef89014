"""Classifier-free guidance (Ho & Salimans 2022) as the paper's Eq. 3 writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .schedule import NoiseSchedule

NoisePrediction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def guide(eps_cond: torch.Tensor, eps_uncond: torch.Tensor, w: float) -> torch.Tensor:
    """Eq. 3: eps = (1 + w) eps(x, c_r) - w eps(x, null).

    diffusers' `guidance_scale` is g = 1 + w: eps_uncond + g (eps_cond - eps_uncond).

    Args:
        eps_cond: float, any shape, the prediction under the condition.
        eps_uncond: float, as eps_cond, the prediction under the null token.
        w: 0 is conditional, -1 is unconditional, above 0 exaggerates the condition.
    """
    if eps_cond.shape != eps_uncond.shape:
        raise ValueError(f"eps_cond {tuple(eps_cond.shape)} and eps_uncond {tuple(eps_uncond.shape)} differ")
    return (1 + w) * eps_cond - w * eps_uncond


@dataclass(frozen=True)
class GuidedNoise:
    """Predicts the guided noise of one batch; samplers call it with (x_t, t).

    Attributes:
        model: Takes x (M,3,H,W), timesteps int64 (M,) and class_labels int64 (M,) to eps (M,3,H,W).
        class_labels: int64 (N,), the condition of each image.
        null_label: The class row that means "no condition".
        guidance_scale: w of Eq. 3.
        guidance_interval: (sigma_lo, sigma_hi): guided where sigma_lo <= sigma_t <= sigma_hi, conditional
            elsewhere (Kynkaanniemi et al. 2024); None guides everywhere.
    """

    model: NoisePrediction
    class_labels: torch.Tensor
    null_label: int
    guidance_scale: float
    schedule: NoiseSchedule
    guidance_interval: tuple[float, float] | None = None

    def is_guided(self, timestep: int) -> bool:
        """Whether this 0-based timestep is in the guidance interval."""
        if self.guidance_interval is None:
            return True
        low, high = self.guidance_interval
        return low <= self.schedule.sigma(timestep + 1) <= high

    def evaluations(self, timestep: int) -> int:
        """How often the network sees each image at this timestep, 1 or 2."""
        return 1 if self._w(timestep) in (0.0, -1.0) else 2

    def _w(self, timestep: int) -> float:
        return self.guidance_scale if self.is_guided(timestep) else 0.0

    def __call__(self, x: torch.Tensor, timestep: int) -> torch.Tensor:
        """Predicts the noise in x, float32 (N,3,H,W), at one 0-based timestep for all images.

        Calls the network once: conditional for w=0, unconditional for w=-1, else on a doubled batch of both.
        """
        return self.combine(self.model(*self.inputs(x, timestep)).to(x.dtype), timestep)

    def inputs(self, x: torch.Tensor, timestep: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs of the network: x, timesteps and labels of N rows, or of 2N with both conditions."""
        null = torch.full_like(self.class_labels, self.null_label)
        if self.evaluations(timestep) == 1:
            condition = null if self._w(timestep) == -1.0 else self.class_labels
        else:
            condition, x = torch.cat([self.class_labels, null]), torch.cat([x, x])
        return x, torch.full_like(condition, timestep), condition

    def combine(self, eps: torch.Tensor, timestep: int) -> torch.Tensor:
        """The guided prediction, float32 (N,3,H,W), from the network's predictions for `inputs`."""
        if self.evaluations(timestep) == 1:
            return eps
        eps_cond, eps_uncond = eps.chunk(2)
        return guide(eps_cond, eps_uncond, self._w(timestep))
