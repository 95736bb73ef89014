"""Several samplings share each call of the network, whatever their solvers, timesteps and guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .guidance import GuidedNoise
from .sampling import Input, Sampling, sample

# of one network call; more rows take memory and are no faster
MAX_ROWS = 128


def sample_together(runs: Sequence[tuple[GuidedNoise, Sampling]]) -> list[torch.Tensor]:
    """Runs samplings of one network side by side, with one network call a step.

    Returns:
        x_0 of each, float32 (N_i,3,H,W); the same as alone, up to rounding.
    """

    def predict(inputs: list[Input]) -> list[torch.Tensor]:
        # 1. the rows of all samplings, each with one condition or with both
        rows = [runs[i][0].inputs(x, t) for i, x, t in inputs]
        parts = [torch.cat(column).split(MAX_ROWS) for column in zip(*rows, strict=True)]
        # 2. one call of the network, or several of MAX_ROWS
        model = runs[0][0].model
        eps = torch.cat([model(*part) for part in zip(*parts, strict=True)])
        # 3. Eq. 3 for each sampling
        each = eps.split([len(x) for x, _, _ in rows])
        return [runs[i][0].combine(e.to(x.dtype), t) for (i, x, t), e in zip(inputs, each, strict=True)]

    return sample([sampling for _, sampling in runs], predict)
