"""DDIM (Song et al. 2021)."""

from __future__ import annotations

import torch

from ..sampling import Sampler, Step


def update(s: Step) -> torch.Tensor:
    """Eq. 12, with the sigma of Eq. 16."""
    sigma = s.eta * ((1 - s.abar_next) / (1 - s.abar) * (1 - s.abar / s.abar_next)) ** 0.5
    x = s.abar_next**0.5 * s.x_0 + max(0.0, 1 - s.abar_next - sigma**2) ** 0.5 * s.eps
    return x + sigma * s.noise() if sigma > 0 else x


SAMPLER = Sampler("ddim", "DDIM", update, uses_eta=True)
