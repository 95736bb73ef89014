"""Says in one line why a run failed and what helps."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ..text import message_line

if TYPE_CHECKING:
    from ..config.tree import RunConfig

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# of torch, cuBLAS and the operating system
_MEMORY_PHRASES = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
_SPACE_PHRASES = ("no space left on device", "disk quota exceeded", "file too large")


def reason(error: BaseException, stage: str, config: RunConfig) -> str:
    """One line: what ended the stage and, if known, what helps."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    is_memory_error = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory_error or _says(error, (errno.ENOMEM,), _MEMORY_PHRASES):
        what = " or ".join(_memory_settings(stage, config)) or "data.limit"
        return f"out of memory in stage {stage}: start a new run with a lower {what}, or on another device"
    if _says(error, _NO_SPACE, _SPACE_PHRASES):
        where = getattr(error, "filename", None)
        return f"no space left on the disk{f' for {where}' if where else ''}: make room, then resume"
    if "PytorchStreamWriter" in first_line:
        return "the state could not be written whole, as on a full disk: make room, then resume"
    # the package's own errors are written for users; others need their type
    if first_line and type(error).__module__.startswith("sdviz."):
        return message_line(first_line)
    return message_line(f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__)


def _says(error: BaseException, numbers: tuple[int, ...], phrases: tuple[str, ...]) -> bool:
    is_number = isinstance(error, OSError) and error.errno in numbers
    return is_number or any(phrase in str(error).lower() for phrase in phrases)


def _memory_settings(stage: str, config: RunConfig) -> list[str]:
    """The settings to lower that the run has, as in "detector.batch_size (now 128)"."""
    from ..pipeline import STAGES

    found = []
    for key in STAGES[stage].memory_settings if stage in STAGES else ():
        value: object = config
        for part in key.split("."):
            value = getattr(value, part) if isinstance(value, BaseModel) else None
        if value is not None:
            found.append(f"{key} (now {value})")
    return found
