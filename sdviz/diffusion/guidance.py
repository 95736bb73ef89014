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
    """The guided noise prediction of one batch, as samplers call it: (x_t, t) -> eps.

    Attributes:
        model: (x (M,3,H,W), timesteps int64 (M,), class_labels int64 (M,)) -> eps (M,3,H,W).
        class_labels: int64 (N,), the condition of each image.
        null_label: The class row that means "no condition".
        guidance_scale: w of Eq. 3.
        guidance_interval: (sigma_lo, sigma_hi): guided where sigma_lo <= sigma_t <= sigma_hi, plainly
            conditional elsewhere (Kynkaanniemi et al. 2024); None guides everywhere.
    """

    model: NoisePrediction
    class_labels: torch.Tensor
    null_label: int
    guidance_scale: float
    schedule: NoiseSchedule
    guidance_interval: tuple[float, float] | None = None

    def is_guided(self, timestep: int) -> bool:
        """Whether w counts at this 0-based timestep."""
        if self.guidance_interval is None:
            return True
        low, high = self.guidance_interval
        return low <= self.schedule.sigma(timestep + 1) <= high

    def evaluations(self, timestep: int) -> int:
        """How often the network sees each image at this timestep: 1 or 2."""
        return 1 if self._w(timestep) in (0.0, -1.0) else 2

    def _w(self, timestep: int) -> float:
        return self.guidance_scale if self.is_guided(timestep) else 0.0

    def __call__(self, x: torch.Tensor, timestep: int) -> torch.Tensor:
        """Predicts the noise in x, float32 (N,3,H,W), at one 0-based timestep for all.

        w=0 makes the conditional call only, w=-1 the unconditional one only; any other w makes one call on the
        doubled batch.
        """
        return self.combine(self.model(*self.inputs(x, timestep)).to(x.dtype), timestep)

    def inputs(self, x: torch.Tensor, timestep: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the network is asked: x, timesteps and labels of N rows, or of 2N with both conditions."""
        null = torch.full_like(self.class_labels, self.null_label)
        if self.evaluations(timestep) == 1:
            condition = null if self._w(timestep) == -1.0 else self.class_labels
        else:
            condition, x = torch.cat([self.class_labels, null]), torch.cat([x, x])
        return x, torch.full_like(condition, timestep), condition

    def combine(self, answer: torch.Tensor, timestep: int) -> torch.Tensor:
        """The guided prediction, float32 (N,3,H,W), from the network's answer to `inputs`."""
        if self.evaluations(timestep) == 1:
            return answer
        eps_cond, eps_uncond = answer.chunk(2)
        return guide(eps_cond, eps_uncond, self._w(timestep))
