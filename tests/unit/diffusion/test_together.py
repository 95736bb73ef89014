from __future__ import annotations

import pytest
import torch

from sdviz.diffusion import together
from sdviz.diffusion.guidance import GuidedNoise
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.diffusion.sampling import Sampling
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.diffusion.together import sample_together

SCHEDULE = NoiseSchedule.linear(1000, 1e-4, 0.02)
NULL = 3
# solver, S, K, w, interval, images: different in everything
RUNS = [
    ("ddim", 100, 5, 2.0, None, 2),
    ("dpmpp_2m", 400, 9, -1.0, None, 1),
    ("ddpm", 30, 30, 0.0, None, 3),
    ("ddim", 0, 5, 2.0, None, 2),
    ("dpmpp_2m", 250, 7, 4.0, (0.2, 0.6), 2),
]


class Net:
    """A prediction that depends on all three inputs; counts its calls and the rows of each."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        scale = (1 + t / 500 + labels / 7).view(-1, 1, 1, 1)
        return torch.sin(x * scale) + 0.1 * labels.view(-1, 1, 1, 1)


def make(net: Net) -> list[tuple]:
    made = []
    for i, (solver, s, k, w, interval, n) in enumerate(RUNS):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(n, 3, 4, 4, generator=generator)
        noise = torch.randn(1001, n, 3, 4, 4, generator=generator)
        guided = GuidedNoise(net, torch.arange(n) % 3, NULL, w, SCHEDULE, interval)
        how = {"eta": 0.5, "step_noise": lambda t, noise=noise: noise[t]}
        made.append((solver, x, SCHEDULE.timesteps(s, k), guided, how))
    return made


@pytest.mark.parametrize("max_rows", [128, 5])
def test_each_comes_out_as_it_would_alone(max_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [
        SAMPLERS[solver](guided, x, timesteps, SCHEDULE, **how)
        for solver, x, timesteps, guided, how in make(Net())
    ]
    net = Net()
    monkeypatch.setattr(together, "MAX_ROWS", max_rows)
    runs = [
        (guided, Sampling(SAMPLERS[solver], x, timesteps, SCHEDULE, **how))
        for solver, x, timesteps, guided, how in make(net)
    ]
    found = sample_together(runs)
    for a, b in zip(alone, found, strict=True):
        assert torch.equal(a, b)
    assert max(net.rows) <= max_rows
    if max_rows == 128:
        # one call a step of the longest, not one for each sampling
        assert len(net.rows) == 30
        # 2 x 2 guided, 1 and 3 with one condition, none at S = 0, 2 outside the interval
        assert net.rows[0] == 4 + 1 + 3 + 2


def test_nothing_to_do() -> None:
    assert sample_together([]) == []
