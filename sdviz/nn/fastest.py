"""Finds the fastest of several ways to compute the same thing, measured once on each machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pydantic import TypeAdapter

from ..files import read_json, write_atomically

_KEPT = TypeAdapter(dict[str, dict[str, Any]])
# A way this many times slower than the best is not timed again.
HOPELESS = 1.5
# Times up to this factor above the best count as equal.
EQUAL = 1.1
ROUNDS = 4
# No round begins after this time.
BUDGET_SEC = 1.0


def cache_folder() -> Path:
    """`SDVIZ_CACHE`, else `sdviz` in the user's cache folder."""
    if given := os.environ.get("SDVIZ_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdviz"


def processor() -> str:
    """The processor's name and the instructions that PyTorch and oneDNN may use on it."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA")
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}" + (f", oneDNN up to {limit}" if limit else "")


def fastest(subject: str, ways: dict[str, Callable[[], Callable[[], object]]]) -> str:
    """The name of the fastest way, the same in every process of this machine.

    The answer is kept in `fastest.json` of the cache folder for this processor and this PyTorch. Other
    processes wait for the one that measures.

    Args:
        subject: What is computed, in words or as a hash.
        ways: By name, functions that return the call to time. Of equally fast ones the first is taken.

    Returns:
        A key of `ways`; the first if the cache folder cannot be written.
    """
    key = f"{processor()}, torch {torch.__version__}, {subject}"
    file = cache_folder() / "fastest.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            kept = _kept(file)
            if kept.get(key, {}).get("fastest") not in ways:
                taken = _measure(ways)
                milliseconds = {name: round(1000 * sec, 2) for name, sec in taken.items()}
                name = next(name for name, sec in taken.items() if sec <= EQUAL * min(taken.values()))
                kept[key] = {"fastest": name, "milliseconds": milliseconds}
                write_atomically(file, json.dumps(kept, indent=1) + "\n")
            return kept[key]["fastest"]
    except OSError:
        return next(iter(ways))


def _kept(file: Path) -> dict[str, Any]:
    """What was measured before; {} if the file is missing or damaged."""
    try:
        return _KEPT.validate_python(read_json(file))
    except (FileNotFoundError, ValueError):
        return {}


def _measure(ways: dict[str, Callable[[], Callable[[], object]]]) -> dict[str, float]:
    """Processor seconds of one call of each way: the minimum over rounds in which they take turns.

    On one thread, because threads mostly wait for each other on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calls = {name: make() for name, make in ways.items()}
        # the first call may prepare things
        taken = {name: min(_seconds(call), _seconds(call)) for name, call in calls.items()}
        ended = time.perf_counter() + BUDGET_SEC
        for _ in range(ROUNDS):
            for name, call in calls.items():
                if time.perf_counter() < ended and taken[name] < HOPELESS * min(taken.values()):
                    taken[name] = min(taken[name], _seconds(call))
    finally:
        torch.set_num_threads(threads)
    return taken


def _seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started
