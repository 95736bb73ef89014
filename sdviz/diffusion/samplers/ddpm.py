"""Ancestral sampling (Ho et al. 2020)."""

from __future__ import annotations

import torch

from ..sampling import Sampler, Step


def update(s: Step) -> torch.Tensor:
    """Algorithm 2, over any subset of the timesteps.

    The variance is "fixed small": beta~ = (1 - abar_next) / (1 - abar_t) beta_t with beta_t =
    1 - abar_t / abar_next.
    """
    alpha = s.a / s.a_next
    beta = 1 - alpha
    # Eq. 7: the mean of q(x_next | x_t, x_0)
    x = (s.a_next**0.5 * beta / (1 - s.a)) * s.x_0 + (alpha**0.5 * (1 - s.a_next) / (1 - s.a)) * s.x
    if s.a_next < 1:
        x = x + ((1 - s.a_next) / (1 - s.a) * beta) ** 0.5 * s.noise()
    return x


SAMPLER = Sampler("ddpm", "DDPM, ancestral", update)
