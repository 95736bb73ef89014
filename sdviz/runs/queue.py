"""The queue: one run per device, the others wait in the order of submission.

The queue consists of the runs' status files: a waiting process checks every second whether a living run holds
one of its devices or was submitted earlier. Runs in another folder of runs are not seen.
"""

from __future__ import annotations

import os
import socket

from ..nn.device import resolve_device
from .folder import Run, list_runs
from .status import RunError, Status

POLL_EVERY_SEC = 1.0


def devices_of(device: str) -> tuple[str, ...]:
    """The devices that a run takes: "cpu", "mps", or for each process its GPU, by the number in the machine."""
    resolved = resolve_device(device)
    if resolved.type != "cuda":
        return (resolved.type,)
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    indices = [resolved.index or 0] if n_processes == 1 else list(range(n_processes))
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(f"cuda:{visible[i] if i < len(visible) and visible[i] else i}" for i in indices)


def runs_before(run: Run, status: Status) -> list[Run]:
    """The runs that this one waits for: first those running on its devices, then those submitted earlier."""
    working: list[Run] = []
    waiting: list[tuple[float, str, Run]] = []
    mine = (float("inf") if status.submitted is None else status.submitted, run.name)
    for other in list_runs():
        if other.name == run.name:
            continue
        try:
            theirs = other.status()
        except RunError:  # a damaged folder is not waited for
            continue
        if not theirs.is_active or theirs.host != socket.gethostname():
            continue
        if not set(theirs.devices) & set(status.devices):
            continue
        place = (theirs.submitted or 0.0, other.name)
        if theirs.state == "running":
            working.append(other)
        elif place < mine:
            waiting.append((*place, other))
    return working + [other for *_, other in sorted(waiting, key=lambda one: one[:2])]
