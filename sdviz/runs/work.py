"""Does the work of a run in this process, and keeps its files up to date."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from ..files import remove_leftovers
from .folder import Run, ledger
from .reasons import reason
from .status import RunError, Status, identity, write_status

if TYPE_CHECKING:
    from ..config.tree import RunConfig
    from ..pipeline import Progress

# reserved in the run's folder and freed when the run fails, so that the error can be written on a full disk
RESERVE_BYTES = 64 * 1024


def execute(
    run: Run,
    on_progress: Callable[[Progress], None] | None = None,
    on_wait: Callable[[Status], None] | None = None,
    now: bool = False,
    until: str | None = None,
) -> Status:
    """Runs or resumes a run in this process until it is done, cancelled or failed.

    First waits until its device is free. SIGTERM and Ctrl-C end the waiting at once, and the work before the
    next step, with the state saved. Under `accelerate launch` every process calls this; the main one writes the
    files.

    Args:
        on_progress: Called with each progress.
        on_wait: Called with the status at each new place in the queue.
        now: Do not wait until the device is free.
        until: The last stage to run; the run is "cancelled" then, and can be resumed. None runs all.

    Returns:
        The last status, as in status.json: state "done", "cancelled" or "failed".

    Raises:
        RunError: Another process runs it, or its configuration was changed.
        ConfigError: Its configuration is broken.
        ValueError: Its device does not exist.
    """
    from ..pipeline import Workspace, config_hash, from_main, is_main_process, run_stages

    if not is_main_process():
        config = run.config()
        with _stop_signals():  # the main process gets them, too, and decides
            while (turn := from_main("", config.device)) == "wait":
                pass
            work = Workspace(run.path, config, lambda progress: None, lambda: False)
            complete = turn == "go" and run_stages(work, until=until)
        return Status("done" if complete else "cancelled", config_hash(config))

    lock = FileLock(run.path / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"{run.name} is running already, in process {run.status().pid}") from error
    with held:
        with ledger():  # waits until the launching process has written the status
            config, before = run.config(), run.status()
        if config_hash(config) != before.config_sha256:
            raise RunError(f"{run.path / 'config.yaml'} was changed since the run was made: start a new run")
        with _stop_signals() as stop:
            return _Recorder(run, config, before, stop, on_progress).work(now, on_wait, until)


class _RunLog(logging.Handler):
    """Writes what the package says to a run's log."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.INFO)
        self.run = run

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        self.run.log(f"warning: {record.getMessage()}" if is_warning else record.getMessage())


@contextmanager
def _logged(run: Run) -> Iterator[None]:
    """Writes what the package says to the run's log, and its warnings to stderr."""
    stderr = logging.StreamHandler()
    stderr.setLevel(logging.WARNING)
    stderr.setFormatter(logging.Formatter("warning: %(message)s"))
    handlers = (_RunLog(run), stderr)
    logger = logging.getLogger(__package__.partition(".")[0])
    level = logger.level
    logger.setLevel(logging.INFO)
    for one in handlers:
        logger.addHandler(one)
    try:
        yield
    finally:
        logger.setLevel(level)
        for one in handlers:
            logger.removeHandler(one)


class _Recorder:
    """Runs the stages, and records the run's state in its files."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        before: Status,
        stop: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        from .queue import devices_of

        self.run, self.config, self.stop, self.on_progress = run, config, stop, on_progress
        me = identity(psutil.Process())
        submitted = before.submitted if before.state == "queued" and before.pid == me["pid"] else None
        self.status = replace(
            before,
            devices=devices_of(config.device),
            submitted=submitted or time.time(),
            eta_sec=None,
            error=None,
            **me,
        )
        # when the current stage began in this process, and its seconds in earlier ones
        self._began, self._before_sec = time.monotonic(), 0.0

    def work(self, now: bool, on_wait: Callable[[Status], None] | None, until: str | None) -> Status:
        from ..pipeline import Workspace, run_stages

        remove_leftovers(self.run.path)
        try:
            if not self._wait_for_device(now, on_wait):
                self._update(state="cancelled", queue_place=None, waits_for=())
                self.run.log("cancelled in the queue")
                return self.status
            (self.run.path / ".reserve").write_bytes(os.urandom(RESERVE_BYTES))
            self.run.log(f"process {self.status.pid} begins on {', '.join(self.status.devices)}")
            _end_last_line(self.run.path / "stats.jsonl")
            work = Workspace(self.run.path, self.config, self._on_progress, self.stop.is_set)
            with _logged(self.run):
                complete = run_stages(work, self._on_stage, until)
            self._update(state="done" if complete else "cancelled", eta_sec=None)
            self.run.log(self.status.state)
        # the error goes into the run's files and the returned status
        except (Exception, KeyboardInterrupt) as error:
            self._fail(error)
        (self.run.path / ".reserve").unlink(missing_ok=True)
        return self.status

    def _wait_for_device(self, now: bool, on_wait: Callable[[Status], None] | None) -> bool:
        """Waits in the queue; False if the run was stopped before its turn."""
        from ..pipeline import from_main
        from .queue import POLL_EVERY_SEC, runs_before

        waits_for: tuple[str, ...] | None = None
        while not self.stop.is_set():
            with ledger():  # so that two waiting runs cannot both find the device free
                before = () if now else tuple(run.name for run in runs_before(self.run, self.status))
                if not before:
                    self._update(state="running", queue_place=None, waits_for=())
                elif before != waits_for:
                    self._update(state="queued", queue_place=len(before), waits_for=before)
            from_main("wait" if before else "go", self.config.device)
            if not before:
                return True
            if before != waits_for:
                waits_for = before
                if on_wait is not None:
                    on_wait(self.status)
            self.stop.wait(POLL_EVERY_SEC)
        from_main("stop", self.config.device)
        return False

    def _fail(self, error: BaseException) -> None:
        # 1. make room for the error on a full disk
        (self.run.path / ".reserve").unlink(missing_ok=True)
        remove_leftovers(self.run.path)
        # 2. say why
        if isinstance(error, KeyboardInterrupt):  # a second Ctrl-C, in the middle of a step
            self._update(state="cancelled", eta_sec=None)
            self.run.log("cancelled in the middle of a step")
            return
        self._update(state="failed", eta_sec=None, error=reason(error, self.status.stage, self.config))
        self.run.log("failed\n" + "".join(traceback.format_exception(error)))

    def _on_stage(self, stage: str, complete: bool) -> None:
        if not complete:
            self._keep_time()
            self._began, self._before_sec = time.monotonic(), self.status.stage_sec.get(stage, 0.0)
            self._update(stage=stage, step=0, total=0, share=0.0, eta_sec=None)
        self.run.log(f"stage {stage}{' is complete already' if complete else ''}")

    def _on_progress(self, p: Progress) -> None:
        line: dict[str, Any] = {"stage": p.stage, "step": p.step, "total": p.total, "share": p.share} | p.values
        if p.training:
            line["training"] = p.training
        with (self.run.path / "stats.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._update(step=p.step, total=p.total, share=p.share, eta_sec=p.eta_sec)
        if self.on_progress is not None:
            self.on_progress(p)

    def _keep_time(self) -> None:
        """Updates the seconds spent in the current stage."""
        if self.status.stage and self.status.state == "running":
            spent = round(self._before_sec + time.monotonic() - self._began, 1)
            self.status = replace(self.status, stage_sec=self.status.stage_sec | {self.status.stage: spent})

    def _update(self, **changed: Any) -> None:  # noqa: ANN401
        if "stage" not in changed:
            self._keep_time()
        self.status = replace(self.status, updated=time.time(), **changed)
        write_status(self.run.status_file, self.status)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; the second Ctrl-C interrupts at once."""
    event = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_last_line(path: Path) -> None:
    """Ends the unfinished last line of a killed process, so that the next line stays whole."""
    if path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        with path.open("ab") as stream:
            stream.write(b"\n")
