"""Says in one line why a run failed and what helps."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from ..config.tree import RunConfig


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# as torch, cuBLAS and the operating system put it
_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
_SPACE_PHRASES = ("no space left on device", "disk quota exceeded", "file too large")
# what takes the memory in each stage
_TO_LOWER = {
    "encoder": ("encoder.pretraining.batch_size", "encoder.simclr.batch_size"),
    "pseudo_labels": ("labels.scan.batch_size",),
    "clusterer": ("clusterer.batch_size",),
    "diffusion": ("diffusion.batch_size",),
    "outliers": ("outliers.batch_size",),
    "detector": ("detector.batch_size",),
    "features": ("data.limit", "evaluation.limit"),
    "controls": ("evaluation.limit",),
    "evaluation": ("evaluation.limit",),
}


def reason(error: BaseException, stage: str, config: RunConfig) -> str:
    """One line: what ended a stage and, where it is known, what helps."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    if _is(error, (MemoryError,), "OutOfMemoryError", (errno.ENOMEM,), _MEMORY_PHRASES):
        what = " or ".join(_settings(stage, config)) or "data.limit"
        return f"out of memory in stage {stage}: start a new run with a lower {what}, or on another device"
    if _is(error, (), "", _NO_SPACE, _SPACE_PHRASES):
        where = getattr(error, "filename", None)
        return f"no space left on the disk{f' for {where}' if where else ''}: make room, then resume"
    if "PytorchStreamWriter" in first_line:
        return "the state could not be written whole, as on a full disk: make room, then resume"
    # the package's own errors are written for people; others need their type
    if first_line and type(error).__module__.startswith("sdviz."):
        return first_line
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def _is(
    error: BaseException,
    kinds: tuple[type[BaseException], ...],
    name: str,
    numbers: tuple[int, ...],
    phrases: tuple[str, ...],
) -> bool:
    return (
        isinstance(error, kinds)
        or type(error).__name__ == name
        or (isinstance(error, OSError) and error.errno in numbers)
        or any(phrase in str(error).lower() for phrase in phrases)
    )


def _settings(stage: str, config: RunConfig) -> list[str]:
    """Each of the settings that the run has, as in "detector.batch_size (now 128)"."""
    found = []
    for key in _TO_LOWER.get(stage, ()):
        value: object = config
        for part in key.split("."):
            value = getattr(value, part) if isinstance(value, BaseModel) else None
        if value is not None:
            found.append(f"{key} (now {value})")
    return found
