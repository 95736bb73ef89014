"""Ancestral sampling (Ho et al. 2020)."""

from __future__ import annotations

import torch

from ..sampling import Sampler, Step


def update(s: Step) -> torch.Tensor:
    """Algorithm 2 over any subset of the timesteps, with beta_t = 1 - abar_t / abar_next."""
    alpha = s.abar / s.abar_next
    beta = 1 - alpha
    # 1. Eq. 7: the mean of q(x_next | x_t, x_0)
    x = (s.abar_next**0.5 * beta / (1 - s.abar)) * s.x_0 + (alpha**0.5 * (1 - s.abar_next) / (1 - s.abar)) * s.x
    # 2. noise of variance beta~ = (1 - abar_next) / (1 - abar_t) beta_t ("fixed small"), not at the last step
    if s.abar_next < 1:
        x = x + ((1 - s.abar_next) / (1 - s.abar) * beta) ** 0.5 * s.noise()
    return x


SAMPLER = Sampler("ddpm", "DDPM, ancestral", update)
