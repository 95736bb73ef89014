"""DPM-Solver++(2M) (Lu et al. 2022)."""

from __future__ import annotations

import math

import torch

from ..sampling import Sampler, Step


def update(s: Step) -> torch.Tensor:
    """Algorithm 2, of first order at both ends."""
    if s.a_next == 1:
        # lambda is infinite at abar = 1, and the first-order step is the prediction itself
        return s.x_0
    h = _lambda(s.a_next) - _lambda(s.a)
    direction = s.x_0
    if s.before is not None:
        x_0, a = s.before
        r = (_lambda(s.a) - _lambda(a)) / h
        direction = s.x_0 + (s.x_0 - x_0) / (2 * r)
    shrink = ((1 - s.a_next) / (1 - s.a)) ** 0.5
    return shrink * s.x - s.a_next**0.5 * math.expm1(-h) * direction


def _lambda(a: float) -> float:
    """log(alpha / sigma), half the logarithm of the signal-to-noise ratio."""
    return 0.5 * math.log(a / (1 - a))


SAMPLER = Sampler("dpmpp_2m", "DPM-Solver++(2M)", update)
