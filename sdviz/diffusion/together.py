"""Several samplings side by side, whatever their timesteps and guidance: one network call a step for all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .guidance import GuidedNoise
from .samplers import Steps

# A small batch costs the network nearly what a larger one costs; beyond this many rows it only takes memory
MAX_ROWS = 128


@torch.no_grad()
def sample_together(runs: Sequence[tuple[GuidedNoise, Steps]], max_rows: int = MAX_ROWS) -> list[torch.Tensor]:
    """Runs samplings to their ends in lockstep.

    Args:
        runs: The guided prediction and the steps of each; all of one network.
        max_rows: Rows of one call; more are split over several.

    Returns:
        x_0 of each, float32 (N_i,3,H,W): what each alone would give, to rounding.
    """
    done: dict[int, torch.Tensor] = {}
    asked: dict[int, tuple[torch.Tensor, int]] = {}

    def advance(i: int, answer: torch.Tensor | None) -> None:
        steps = runs[i][1]
        try:
            asked[i] = next(steps) if answer is None else steps.send(answer)
        except StopIteration as end:
            asked.pop(i, None)
            done[i] = end.value

    for i in range(len(runs)):
        advance(i, None)
    while asked:
        turn = list(asked)
        inputs = [runs[i][0].inputs(*asked[i]) for i in turn]
        parts = [torch.cat(column).split(max_rows) for column in zip(*inputs, strict=True)]
        model = runs[turn[0]][0].model
        answers = torch.cat([model(*rows) for rows in zip(*parts, strict=True)])
        shares = answers.split([len(x) for x, _, _ in inputs])
        for i, share in zip(turn, shares, strict=True):
            x, t = asked[i]
            advance(i, runs[i][0].combine(share.to(x.dtype), t))
    return [done[i] for i in range(len(runs))]
