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

# lets the pages' own work go first
NICENESS = 5
_PACKAGE = Path(__file__).resolve().parents[2]


def launch(run: Run, now: bool = False) -> None:
    """Starts or resumes a run in its own process and returns at once.

    The process is `python -m sdviz resume <run>`. It outlives this one, and prints to output.txt in the run's
    folder.

    Args:
        now: Do not wait until the device is free.

    Raises:
        RunError: The run is active already, the folder is not a run, or its device does not exist.
        ConfigError: The run's configuration is broken.
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
        # in the queue from now on, while the process is still importing
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
    # without this wait a zombie process would stay
    threading.Thread(target=process.wait, name=f"wait for {run.name}", daemon=True).start()


def stop(run: Run, wait_sec: float = 60.0) -> Status:
    """Asks an active run to stop, waits for it, and returns its status.

    The state is still "running" if the current step takes longer than `wait_sec`.

    Raises:
        RunError: The run is not active, or the folder is not a run.
    """
    check_own(run)
    status = run.status()
    if not status.is_active:
        raise RunError(f"{run.name} is not running: {status.state}")
    process = living_process(status)
    if process is not None:
        with suppress(psutil.NoSuchProcess):  # it may just have ended
            process.terminate()
    deadline = time.monotonic() + wait_sec
    while (status := run.status()).is_active and time.monotonic() < deadline:
        time.sleep(0.1)
    if status.state == "killed":  # it ended before it could handle signals, and wrote nothing
        with ledger():
            status = replace(run.status(), state="cancelled", error=None, updated=time.time())
            write_status(run.status_file, status)
    return status
