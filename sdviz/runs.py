"""Runs: training as numbered folders that survive their process, and that other processes read.

A run is `runs/<number>-<dataset>-<profile>/` (SDVIZ_RUNS names another place than `runs`) with
config.yaml, status.json, stats.jsonl, log.txt, and what `sdviz.pipeline` writes. Files that others read
are replaced whole; stats.jsonl and log.txt grow by lines.

The pipeline brings torch with it and is imported only where a run is made or worked on, so that looking
at runs is quick.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import psutil
from filelock import FileLock, Timeout

from .config import RunConfig, load_config, to_yaml

if TYPE_CHECKING:
    from .pipeline import Progress

RunState = Literal["running", "stopped", "failed", "done", "killed"]
# kept in the folder and freed when a run fails, so that a full disk can still say that it is full
RESERVE_BYTES = 64 * 1024


class RunError(ValueError):
    """A run that is not there or cannot do what was asked; the message is one line."""


@dataclass(frozen=True)
class Status:
    """status.json.

    Attributes:
        state: "running", "stopped", "failed" or "done"; `Run.status` says "killed" where the file says
            "running" and that process is gone.
        config_sha256: Of the configuration that the run was made with.
        stage: The last stage begun, "" before the first.
        step: Steps done of this stage.
        total: Its steps in all; 0 where it does not count any.
        share: How far the stage is, 0..1.
        eta_sec: Seconds to the stage's end; None where unknown.
        pid: The process that writes this; None before the first.
        process_started: When it started, seconds since 1970: a number is used again, a process is not.
        error: Why it failed, one line.
        updated: When this was written, seconds since 1970.
    """

    state: RunState
    config_sha256: str
    stage: str = ""
    step: int = 0
    total: int = 0
    share: float = 0.0
    eta_sec: float | None = None
    pid: int | None = None
    process_started: float | None = None
    error: str | None = None
    updated: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def bundle(self) -> Path:
        """Where the bundle is once the run is done."""
        return self.path / "bundle"

    def config(self) -> RunConfig:
        """The resolved configuration.

        Raises:
            ConfigError: The file was broken by hand.
        """
        return load_config(self.path / "config.yaml")

    def status(self) -> Status:
        """What status.json says, checked against the process that it names.

        Raises:
            RunError: No such file, or a damaged one.
        """
        file = self.path / "status.json"
        try:
            tree = json.loads(file.read_text("utf-8"))
            status = Status(**{f.name: tree[f.name] for f in fields(Status) if f.name in tree})
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no status.json: not a run") from error
        except (ValueError, TypeError) as error:
            raise RunError(f"{file} is damaged") from error
        if status.state == "running" and not _is_alive(status):
            return replace(status, state="killed", eta_sec=None)
        return status

    def is_running(self) -> bool:
        """Whether its file says so and that very process lives."""
        return self.status().state == "running"

    def stats(self) -> list[dict[str, Any]]:
        """The lines of stats.jsonl: stage, step, total and what was measured.

        A line that a killed process left unfinished is passed over, and of steps done twice, before and
        after a resume, the later ones count.
        """
        file = self.path / "stats.jsonl"
        lines: list[dict[str, Any]] = []
        for text in file.read_text("utf-8").splitlines() if file.is_file() else []:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            while lines and lines[-1]["stage"] == line["stage"] and lines[-1]["step"] >= line["step"]:
                lines.pop()
            lines.append(line)
        return lines

    def log(self, text: str) -> None:
        """Adds to log.txt, with the time in UTC."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")


def runs_root() -> Path:
    """Where runs are kept: SDVIZ_RUNS, else `runs` under the working directory; read at every call."""
    return Path(os.environ.get("SDVIZ_RUNS") or "runs")


def create(config: RunConfig) -> Run:
    """Makes the folder of a new run, not yet started: `execute` does that, here or in another process.

    Under `accelerate launch` the main process makes it and every process gets it.
    """
    from .pipeline import from_main, is_main_process

    path = str(_make_folder(config)) if is_main_process() else ""
    return Run(Path(from_main(path, config.device)))


def _make_folder(config: RunConfig) -> Path:
    from .pipeline import absolute_source, config_hash, write_atomically

    root = runs_root()
    root.mkdir(parents=True, exist_ok=True)
    # a run may be resumed from another directory
    source = config.data.model_copy(update={"id": absolute_source(config.data.id)})
    config = config.model_copy(update={"data": source})
    name = f"{_slug(Path(config.data.id).name)}-{_slug(config.profile)}"
    with FileLock(root / ".lock"):
        taken = [int(m[1]) for p in root.iterdir() if (m := re.match(r"([0-9]+)-", p.name))]
        run = Run(root / f"{max(taken, default=0) + 1:05d}-{name}")
        run.path.mkdir()
    write_atomically(run.path / "config.yaml", to_yaml(config))
    _write_status(run, Status("stopped", config_hash(config)))
    return run.path


def list_runs() -> list[Run]:
    """Every run, by number; what is not a run's folder is passed over, links too."""
    root = runs_root()
    if not root.is_dir():
        return []
    found = [Run(p) for p in root.iterdir() if _is_run(p)]
    return sorted(found, key=lambda run: (int(run.name.partition("-")[0]), run.name))


def find(text: str) -> Run:
    """The run of that number, name or path.

    Raises:
        RunError: There is none, or it lies outside the runs' folder.
    """
    root = runs_root()
    if text.isdecimal():
        matching = [run for run in list_runs() if int(run.name.partition("-")[0]) == int(text)]
        if matching:
            return matching[0]
    inside = root / text
    for path in (inside, Path(text)):
        if path.parent.resolve() == root.resolve() and _is_run(path):
            return Run(root / path.name)
    known = ", ".join(run.name for run in list_runs()[-3:])
    raise RunError(f"no run {text!r} in {root}{f' (the last ones: {known})' if known else ', which has none'}")


def execute(run: Run, on_progress: Callable[[Progress], None] | None = None) -> Status:
    """Does a run's work in this process, from where it was left, until it is done, stopped or failed.

    SIGTERM and Ctrl-C stop it before the next step, with its state saved. Under `accelerate launch` every
    process calls this, and the main one keeps the files.

    Args:
        run: A run that `create` made.
        on_progress: Told how far it is, besides the files.

    Returns:
        The last status, as status.json has it: state "done", "stopped" or "failed".

    Raises:
        RunError: Another process is at it, or its configuration was changed.
        ConfigError: Its configuration was broken.
    """
    from .pipeline import Workspace, config_hash, is_main_process, run_stages

    if not is_main_process():
        config = run.config()
        with _stop_signals():  # the main process gets them too, and tells
            complete = run_stages(Workspace(run.path, config, lambda progress: None, lambda: False))
        return Status("done" if complete else "stopped", config_hash(config))

    lock = FileLock(run.path / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"{run.name} is running already, in process {run.status().pid}") from error
    with held:
        config, before = run.config(), run.status()
        if config_hash(config) != before.config_sha256:
            raise RunError(f"{run.path / 'config.yaml'} was changed since the run was made: start a new run")
        with _stop_signals() as stop:
            return _Recorder(run, config, before, stop, on_progress).work()


class _Recorder:
    """Keeps a run's files while its stages work."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        before: Status,
        stop: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.run, self.config, self.stop, self.on_progress = run, config, stop, on_progress
        me = psutil.Process()
        self.status = replace(
            before,
            state="running",
            pid=me.pid,
            process_started=me.create_time(),
            eta_sec=None,
            error=None,
        )

    def work(self) -> Status:
        from .pipeline import Workspace, run_stages

        for leftover in self.run.path.rglob("*.partial"):
            if leftover.is_file():
                leftover.unlink()
        try:
            (self.run.path / ".reserve").write_bytes(os.urandom(RESERVE_BYTES))
            self._update()
            self.run.log(f"process {self.status.pid} begins")
            _end_last_line(self.run.path / "stats.jsonl")
            work = Workspace(self.run.path, self.config, self._on_progress, self.stop.is_set)
            complete = run_stages(work, self._on_stage)
            self._update(state="done" if complete else "stopped", eta_sec=None)
            self.run.log(self.status.state)
        # whatever ends a run stands in its files, and the status returned says so: nothing is swallowed
        except (Exception, KeyboardInterrupt) as error:
            self._fail(error)
        (self.run.path / ".reserve").unlink(missing_ok=True)
        return self.status

    def _fail(self, error: BaseException) -> None:
        # 1. make room: a full disk has to be able to say so
        (self.run.path / ".reserve").unlink(missing_ok=True)
        for leftover in self.run.path.rglob("*.partial"):
            if leftover.is_file():
                leftover.unlink()
        # 2. say why
        if isinstance(error, KeyboardInterrupt):  # a second Ctrl-C, which does not wait for the step's end
            self._update(state="stopped", eta_sec=None)
            self.run.log("stopped in the middle of a step")
            return
        first_line = next(iter(str(error).strip().splitlines()), "")
        reason = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
        self._update(state="failed", eta_sec=None, error=reason)
        self.run.log("failed\n" + "".join(traceback.format_exception(error)))

    def _on_stage(self, stage: str, complete: bool) -> None:
        if not complete:
            self._update(stage=stage, step=0, total=0, share=0.0, eta_sec=None)
        self.run.log(f"stage {stage}{' is complete already' if complete else ''}")

    def _on_progress(self, p: Progress) -> None:
        line = {"stage": p.stage, "step": p.step, "total": p.total, "share": p.share} | p.values
        with (self.run.path / "stats.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._update(step=p.step, total=p.total, share=p.share, eta_sec=p.eta_sec)
        if self.on_progress is not None:
            self.on_progress(p)

    def _update(self, **changed: Any) -> None:  # noqa: ANN401
        self.status = replace(self.status, updated=time.time(), **changed)
        _write_status(self.run, self.status)


def stop(run: Run, wait_sec: float = 60.0) -> Status:
    """Asks a running run to stop, and waits for it.

    Args:
        run: The run.
        wait_sec: How long at most.

    Returns:
        Its status then; still "running" where its step takes longer than `wait_sec`.

    Raises:
        RunError: It is not running.
    """
    status = run.status()
    if status.state != "running":
        raise RunError(f"{run.name} is not running: {status.state}")
    with suppress(psutil.NoSuchProcess):  # it may end by itself just now
        psutil.Process(status.pid).terminate()
    deadline = time.monotonic() + wait_sec
    while (status := run.status()).state == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    return status


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


def _is_alive(status: Status) -> bool:
    if status.pid is None or status.process_started is None:
        return False
    try:
        process = psutil.Process(status.pid)
        # the system derives start times from a clock that may be set while the process runs
        same = abs(process.create_time() - status.process_started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_run(path: Path) -> bool:
    return (
        re.match(r"[0-9]+-", path.name) is not None
        and path.is_dir()
        and not path.is_symlink()
        and (path / "config.yaml").is_file()
    )


def _write_status(run: Run, status: Status) -> None:
    from .pipeline import write_atomically

    write_atomically(run.path / "status.json", json.dumps(asdict(status), indent=1) + "\n")


def _end_last_line(path: Path) -> None:
    """Ends a line that a killed process left unfinished, so that the next one stands by itself."""
    if path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        with path.open("ab") as stream:
            stream.write(b"\n")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text)[:40].strip("-") or "x"
