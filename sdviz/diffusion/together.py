"""Several samplings of one network at once, whatever their solvers, timesteps and guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .guidance import GuidedNoise
from .sampling import Sampling, sample

# rows of one network call; more of them take memory and are no faster
MAX_ROWS = 128


def sample_together(runs: Sequence[tuple[GuidedNoise, Sampling]]) -> list[torch.Tensor]:
    """Runs samplings of one network to their ends, with one network call a step for all.

    The x_0 of each, float32 (N_i,3,H,W), is what it would be alone, up to rounding.
    """

    def predict(asked: list[tuple[int, torch.Tensor, int]]) -> list[torch.Tensor]:
        inputs = [runs[i][0].inputs(x, t) for i, x, t in asked]
        parts = [torch.cat(column).split(MAX_ROWS) for column in zip(*inputs, strict=True)]
        model = runs[0][0].model
        answers = torch.cat([model(*rows) for rows in zip(*parts, strict=True)])
        shares = answers.split([len(x) for x, _, _ in inputs])
        return [runs[i][0].combine(s.to(x.dtype), t) for (i, x, t), s in zip(asked, shares, strict=True)]

    return sample([sampling for _, sampling in runs], predict)
