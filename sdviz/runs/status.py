"""status.json: what a run's process says about itself, and whether that process lives."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import TypeAdapter, ValidationError

from ..files import FORMAT_VERSION, other_format, write_atomically

RunState = Literal["new", "queued", "running", "cancelled", "failed", "done", "killed"]


class RunError(ValueError):
    """A run that is not there or cannot do what was asked; the message is one line."""


@dataclass(frozen=True)
class Status:
    """status.json.

    Attributes:
        state: "new" (made, not begun), "queued" (waits for its device), "running", "cancelled" (stopped
            on request), "failed" or "done"; `Run.status` says "killed" where the file says "queued" or
            "running" and that process is gone.
        config_sha256: Of the configuration that the run was made with.
        stage: The last stage begun, "" before the first.
        total: Its steps in all; 0 if it does not count any.
        share: How far the stage is, 0..1.
        eta_sec: Seconds to the stage's end; None if unknown.
        stage_sec: Seconds spent in each stage, over all resumes.
        pid: The process that writes this; None before the first.
        process_started: When it started, seconds since 1970: a number is used again, a process is not.
        host: The machine that it runs on.
        boot: Which start of that machine, "" if the system does not say.
        devices: What it works on, as in "cpu" or "cuda:1"; two runs share none of them.
        submitted: When it was asked for, seconds since 1970: the order of the queue.
        queue_place: 1 for the next to start, only while queued.
        waits_for: Names of the runs before it, only while queued.
        updated: When this was written, seconds since 1970.
    """

    state: RunState
    config_sha256: str
    stage: str = ""
    step: int = 0
    total: int = 0
    share: float = 0.0
    eta_sec: float | None = None
    stage_sec: dict[str, float] = field(default_factory=dict)
    pid: int | None = None
    process_started: float | None = None
    host: str | None = None
    boot: str | None = None
    devices: tuple[str, ...] = ()
    submitted: float | None = None
    queue_place: int | None = None
    waits_for: tuple[str, ...] = ()
    error: str | None = None
    updated: float = field(default_factory=time.time)
    format_version: int = FORMAT_VERSION

    @property
    def is_active(self) -> bool:
        """Whether a process is at it: it runs or waits for its turn."""
        return self.state in ("queued", "running")


_CHECK = TypeAdapter(Status)


def read_status(path: Path) -> Status:
    """Reads status.json and checks that the process it names lives.

    Raises:
        RunError: No such file, a damaged one, or one of another format version.
    """
    try:
        tree = json.loads(path.read_text("utf-8"))
        status = _CHECK.validate_python(tree)
    except FileNotFoundError as error:
        raise RunError(f"{path.parent} has no {path.name}: not a run") from error
    except (OSError, ValueError, ValidationError) as error:
        raise RunError(f"{path} is damaged") from error
    version = tree.get("format_version", 1)
    if version != FORMAT_VERSION:
        command = f"python -m sdviz run {path.with_name('config.yaml')}"
        raise RunError(other_format(path.parent, version, command))
    if status.is_active and living_process(status) is None:
        return replace(
            status, state="killed", eta_sec=None, queue_place=None, waits_for=(), error=_why_it_is_gone(status)
        )
    return status


def write_status(path: Path, status: Status) -> None:
    """Replaces the file."""
    write_atomically(path, json.dumps(asdict(status), indent=1) + "\n")


def identity(process: psutil.Process) -> dict[str, Any]:
    """The fields of `Status` that say which process it is."""
    return {
        "pid": process.pid,
        "process_started": process.create_time(),
        "host": socket.gethostname(),
        "boot": _boot(),
    }


def living_process(status: Status) -> psutil.Process | None:
    """The process that the status names; None if it has ended or runs on another machine."""
    if status.pid is None or status.process_started is None:
        return None
    if status.host not in (None, socket.gethostname()) or status.boot not in (None, _boot()):
        return None
    try:
        process = psutil.Process(status.pid)
        # the system derives start times from a clock that may be set while the process runs
        same = abs(process.create_time() - status.process_started) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _boot() -> str:
    """A name for this start of the machine, "" if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _why_it_is_gone(status: Status) -> str:
    if status.host not in (None, socket.gethostname()):
        return f"its process was on the machine {status.host}, which cannot be seen from here"
    if status.boot not in (None, _boot()):
        return "the machine was restarted while it ran"
    if status.state == "queued":
        return "its process ended while it waited to begin"
    return "its process ended without a word: killed from outside, or by the system for want of memory"


def duration(seconds: float) -> str:
    """As in 1:02:03 or 2:03: hours, minutes, seconds."""
    minutes, sec = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}" if hours else f"{minutes}:{sec:02d}"
