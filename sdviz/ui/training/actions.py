"""Actions of the page Training on runs. Each checks that it is allowed, whatever buttons a page shows."""

from sdviz import runs
from sdviz.config.tree import RunConfig
from sdviz.runs import Run, Status
from sdviz.ui.guests import check_may_write

# how long a click waits for a run to stop; one in a longer step stops later
STOP_WAIT_SEC = 3.0


def start(config: RunConfig, now: bool) -> Run:
    """Makes a run and launches its process. Raises GuestError: not allowed; RunError: its device is missing."""
    check_may_write()
    run = runs.create(config)
    runs.launch(run, now)
    return run


def resume(name: str) -> None:
    """Resumes a run. Raises GuestError: not allowed; RunError: it runs; ConfigError: a broken configuration."""
    check_may_write()
    runs.launch(_run(name))


def stop(name: str) -> Status:
    """Asks a run to stop and returns its status. Raises GuestError: not allowed; RunError: it does not run."""
    check_may_write()
    return runs.stop(_run(name), STOP_WAIT_SEC)


def delete(name: str) -> None:
    """Deletes a run and all its files. Raises GuestError: not allowed; RunError: it runs."""
    check_may_write()
    runs.delete(_run(name))


def _run(name: str) -> Run:
    return Run(runs.runs_root() / name)
