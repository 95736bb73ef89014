"""DPM-Solver++(2M) (Lu et al. 2022)."""

from __future__ import annotations

import math

import torch

from ..sampling import Sampler, Step


def update(s: Step) -> torch.Tensor:
    """Algorithm 2; the first and the last step are of first order."""
    if s.abar_next == 1:
        # lambda is infinite at abar = 1; there the first-order step gives x_0 itself
        return s.x_0
    h = _lambda(s.abar_next) - _lambda(s.abar)
    direction = s.x_0
    if s.previous is not None:
        x_0_previous, abar_previous = s.previous
        r = (_lambda(s.abar) - _lambda(abar_previous)) / h
        direction = s.x_0 + (s.x_0 - x_0_previous) / (2 * r)
    shrink = ((1 - s.abar_next) / (1 - s.abar)) ** 0.5
    return shrink * s.x - s.abar_next**0.5 * math.expm1(-h) * direction


def _lambda(abar: float) -> float:
    """log(alpha / sigma), half the logarithm of the signal-to-noise ratio."""
    return 0.5 * math.log(abar / (1 - abar))


SAMPLER = Sampler("dpmpp_2m", "DPM-Solver++(2M)", update)
