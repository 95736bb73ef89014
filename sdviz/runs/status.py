"""status.json: the state of a run, and whether its process lives."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from ..files import FORMAT_VERSION, other_format, read_json, write_atomically
from ..text import LineError, message_line

RunState = Literal["new", "queued", "running", "cancelled", "failed", "done", "killed"]


class RunError(LineError):
    """A run that does not exist or cannot do what was asked; the message is one line."""


class OlderFormatError(RunError):
    """A run of an older format, which cannot be read; the message says how to make it again."""


# seconds that a page can show, and that fit a date
Seconds = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
ProcessId = Annotated[int, Field(ge=1, lt=2**31)]
# text of a file that others may have written
Line = Annotated[str, AfterValidator(message_line)]


@dataclass(frozen=True)
class Status:
    """The content of status.json; times are seconds since 1970."""

    # "new": made, not begun; "queued": waits for its device; "cancelled": stopped on request. The file never
    # says "killed": `read_status` does, if the file says "queued" or "running" and the process is gone.
    state: RunState
    config_sha256: str  # of the configuration that the run was made with
    stage: Line = ""  # the last stage begun, "" before the first
    step: Count = 0  # in the stage
    total: Count = 0  # steps of the stage, 0 if it counts none
    share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of the stage done, 0..1
    eta_sec: Seconds | None = None  # seconds to the stage's end; None if unknown
    stage_sec: dict[Line, Seconds] = field(default_factory=dict)  # spent in each stage, over all resumes
    pid: ProcessId | None = None  # the process that writes this; None before the first
    process_started: Seconds | None = None  # its start, which tells it from a later one of its number
    host: Line | None = None  # the machine of the process
    boot: str | None = None  # which start of that machine; "" if the system does not tell
    devices: tuple[Line, ...] = ()  # such as "cpu" or "cuda:1"; two runs never share one
    submitted: Seconds | None = None  # when the run was asked for; the order of the queue
    queue_place: Count | None = None  # while queued: 1 for the next to start
    waits_for: tuple[Line, ...] = ()  # while queued: names of the runs before it
    error: Line | None = None
    updated: Seconds = field(default_factory=time.time)  # when this was written
    format_version: int = FORMAT_VERSION

    @property
    def is_active(self) -> bool:
        """Whether it runs or waits in the queue."""
        return self.state in ("queued", "running")


_CHECK = TypeAdapter(Status)


def read_status(path: Path) -> Status:
    """Reads status.json and checks that the process it names lives.

    Raises:
        OlderFormatError: The file is of an older format version.
        RunError: It is missing, damaged or of a newer one.
    """
    try:
        tree = read_json(path)
        status = _CHECK.validate_python(tree)
    except FileNotFoundError as error:
        raise RunError(f"{path.parent} has no {path.name}: not a run") from error
    except (OSError, ValueError, ValidationError) as error:
        raise RunError(f"{path} is damaged") from error
    version = tree.get("format_version", 1)
    if version != FORMAT_VERSION:
        command = f"python -m sdviz run {path.with_name('config.yaml')}"
        kind = OlderFormatError if version < FORMAT_VERSION else RunError
        raise kind(other_format(path.parent, version, command))
    if status.is_active and living_process(status) is None:
        return replace(
            status, state="killed", eta_sec=None, queue_place=None, waits_for=(), error=_why_it_is_gone(status)
        )
    return status


def write_status(path: Path, status: Status) -> None:
    """Writes status.json, whole or not at all."""
    write_atomically(path, json.dumps(asdict(status), indent=1) + "\n")


def identity(process: psutil.Process) -> dict[str, Any]:
    """The fields of `Status` that identify a process."""
    return {
        "pid": process.pid,
        "process_started": process.create_time(),
        "host": socket.gethostname(),
        "boot": _boot(),
    }


def living_process(status: Status) -> psutil.Process | None:
    """The process of a status; None if it has ended or runs on another machine."""
    if status.pid is None or status.process_started is None:
        return None
    if status.host not in (None, socket.gethostname()) or status.boot not in (None, _boot()):
        return None
    try:
        process = psutil.Process(status.pid)
        # the clock behind start times may be set while the process runs
        same = abs(process.create_time() - status.process_started) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _boot() -> str:
    """An id of this start of the machine; "" if the system has none."""
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
    return "its process ended without an error: killed from outside, or by the system because memory ran out"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03 or 2:03."""
    minutes, sec = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{sec:02d}" if hours else f"{minutes}:{sec:02d}"
