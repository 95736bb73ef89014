"""Actions of the page Training on runs. Each checks that it is allowed, whatever buttons a page shows."""

import os

import streamlit as st

from sdviz import runs
from sdviz.config.tree import RunConfig
from sdviz.runs import Run, RunError, Status
from sdviz.ui.read_only import READ_ONLY, is_read_only

ALLOW_REMOTE = "SDVIZ_ALLOW_REMOTE_RUNS"
# how long a click waits for a run to stop; one in a longer step stops later
STOP_WAIT_SEC = 3.0


def refusal() -> str:
    """Returns one line on why runs can only be watched here, "" if everything is allowed."""
    if is_read_only():
        return f"Read-only: runs can be watched here, not started, stopped or deleted ({READ_ONLY} is set)."
    if not _serves_this_machine_only() and os.environ.get(ALLOW_REMOTE, "") in ("", "0"):
        return (
            "This server answers other machines too, so runs can only be watched here. "
            f"Set {ALLOW_REMOTE}=1 to allow starting, stopping and deleting, or server.address to localhost."
        )
    return ""


def start(config: RunConfig, now: bool) -> Run:
    """Makes a run and launches its process. Raises RunError: not allowed, or its device is missing."""
    _check_allowed()
    run = runs.create(config)
    runs.launch(run, now)
    return run


def resume(name: str) -> None:
    """Resumes a run. Raises RunError: not allowed, or it runs; ConfigError: a broken configuration."""
    _check_allowed()
    runs.launch(_run(name))


def stop(name: str) -> Status:
    """Asks a run to stop; returns its status soon after. Raises RunError: not allowed, or it does not run."""
    _check_allowed()
    return runs.stop(_run(name), STOP_WAIT_SEC)


def delete(name: str) -> None:
    """Deletes a run and all its files. Raises RunError: not allowed, or it runs."""
    _check_allowed()
    runs.delete(_run(name))


def _run(name: str) -> Run:
    return Run(runs.runs_root() / name)


def _check_allowed() -> None:
    if line := refusal():
        raise RunError(line)


def _serves_this_machine_only() -> bool:
    address = str(st.get_option("server.address") or "")  # "" binds to every address
    return address in ("localhost", "::1") or address.startswith("127.")
