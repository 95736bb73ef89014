"""Losses that several trainings share."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def nt_xent(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    """The normalised temperature-scaled cross-entropy, Eq. 1 of Chen et al. 2020, a scalar.

    Row i of `a` and of `b`, float (N,D), are two views of image i; the mean is over all 2N views.
    """
    z = F.normalize(torch.cat([a, b]).float(), dim=1)
    n = len(a)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(float("-inf"))
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, partner)
