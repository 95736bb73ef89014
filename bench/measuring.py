"""What the benches share: clocks, ratios of pairs, memory of the process, load of the machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def seconds(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Wall time of a call, including the work of the device, and its result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def summary(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float, float, float]:
    """Medians of the first and the second numbers; median, minimum and maximum of second / first."""
    ratios = [b / a for a, b in pairs]
    firsts, seconds = zip(*pairs, strict=True)
    return (
        statistics.median(firsts),
        statistics.median(seconds),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def process_memory(field: str) -> int:
    """Bytes of a field of /proc/self/status, such as VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def in_own_process(script: str, *arguments: str) -> dict[str, Any]:
    """Runs a script in a process of its own and parses the last line that it prints, as JSON."""
    done = subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def load_average() -> str:
    """The load of the machine for a line of text, "" if the system does not tell."""
    return f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""


def write_json(path: Path | None, tree: dict[str, Any]) -> None:
    """Writes all numbers, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(tree, indent=1) + "\n")
