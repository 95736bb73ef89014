"""Starts and stops the process of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from .folder import Run, check_own, ledger, runs_root
from .status import RunError, Status, identity, living_process, write_status

# the pages' own work comes first
NICENESS = 5
_PACKAGE = Path(__file__).resolve().parents[2]


def launch(run: Run, now: bool = False) -> None:
    """Starts or resumes a run in a process of its own and returns at once.

    The process is `python -m sdviz resume <run>` in a session of its own, so it outlives this one. It prints to
    output.txt in the run's folder. `now` does not wait for the device.

    Raises:
        RunError: A process is at it already, the folder is no run's, or its device is not there.
        ConfigError: Its configuration was broken.
    """
    from .queue import devices_of

    check_own(run)
    device = run.config().device
    try:
        devices = devices_of(device)
    except ValueError as error:
        raise RunError(str(error)) from error
    with ledger():
        status = run.status()
        if status.is_active:
            raise RunError(f"{run.name} is {status.state} already, in process {status.pid}")
        command = [sys.executable, "-m", "sdviz", "resume", run.name, *(["--now"] if now else [])]
        search = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))
        with (run.path / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=os.environ | {"SDVIZ_RUNS": str(runs_root().resolve()), "PYTHONPATH": search},
            )
        # it is in the queue from now on, before it has imported everything
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(process.pid)
            found.nice(NICENESS)
            status = replace(
                status,
                state="queued",
                devices=devices,
                submitted=time.time(),
                eta_sec=None,
                error=None,
                updated=time.time(),
                **identity(found),
            )
            write_status(run.status_file, status)
    # waits for its end, or a zombie process would stay
    threading.Thread(target=process.wait, name=f"wait for {run.name}", daemon=True).start()


def stop(run: Run, wait_sec: float = 60.0) -> Status:
    """Asks a run at work or in the queue to stop, waits for it, and returns its status.

    That is still "running" if its step takes longer than `wait_sec`.

    Raises:
        RunError: No process is at it, or the folder is no run's.
    """
    check_own(run)
    status = run.status()
    if not status.is_active:
        raise RunError(f"{run.name} is not running: {status.state}")
    process = living_process(status)
    if process is not None:
        with suppress(psutil.NoSuchProcess):  # it may end by itself just now
            process.terminate()
    deadline = time.monotonic() + wait_sec
    while (status := run.status()).is_active and time.monotonic() < deadline:
        time.sleep(0.1)
    if status.state == "killed":  # it ended before it listened to signals, and wrote nothing
        with ledger():
            status = replace(run.status(), state="cancelled", error=None, updated=time.time())
            write_status(run.status_file, status)
    return status
