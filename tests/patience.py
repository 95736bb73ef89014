"""How long to wait for something on this machine, which may be slow, busy or both."""

from __future__ import annotations

import time

import torch

# What `_work` takes on a quick machine with nothing else to do.
QUICK_SEC = 0.04
# What hangs is given up at some time on every machine.
MOST = 10.0


def patience(sec: float) -> float:
    """The seconds that this machine, as busy as it is now, gets for what a quick idle one does in `sec`."""
    started = time.perf_counter()
    _work()
    return sec * min(MOST, max(1.0, (time.perf_counter() - started) / QUICK_SEC))


def _work() -> None:
    """A little of what tests wait for: Python, and a network on all threads."""
    sum(i % 7 for i in range(150_000))
    x, weight = torch.ones(4, 32, 32, 32), torch.ones(32, 32, 3, 3)
    for _ in range(10):
        torch.nn.functional.conv2d(x, weight, padding=1)
