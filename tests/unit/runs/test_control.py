from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.runs import Run, RunError
from sdviz.runs.status import living_process, write_status


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that stands in for Python: it says how it was called and sleeps, like a long import."""
    script = tmp_path / "interpreter"
    script.write_text('#!/bin/sh\necho "$@ in $SDVIZ_RUNS with $PYTHONPATH"\nexec sleep 600\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return script


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_launch_starts_a_session_of_its_own_and_stop_ends_it(
    three: list[Run], root: Path, interpreter: Path
) -> None:
    run = three[0]
    runs.launch(run)
    status = run.status()
    assert (status.state, status.devices, status.error) == ("queued", ("cpu",), None)
    process = living_process(status)
    assert process is not None
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.nice() >= max(1, psutil.Process().nice())
    output = run.path / "output.txt"
    wait_for(output.read_text)
    package = Path(runs.__file__).resolve().parents[2]
    assert output.read_text().startswith(f"-m sdviz resume {run.name} in {root.resolve()} with {package}")

    with pytest.raises(RunError, match=f"is queued already, in process {process.pid}"):
        runs.launch(run)
    assert runs.stop(run).state == "cancelled"
    assert (run.status().state, run.status().error) == ("cancelled", None)
    # its end is taken note of: nothing is left in the system's list
    wait_for(lambda: not psutil.pid_exists(process.pid))
    with pytest.raises(RunError, match="is not running: cancelled"):
        runs.stop(run)


def test_a_launched_process_that_ends_by_itself_is_named(three: list[Run], interpreter: Path) -> None:
    interpreter.write_text("#!/bin/sh\nexit 3\n")
    runs.launch(three[0])
    wait_for(lambda: three[0].status().state == "killed")
    assert three[0].status().error == "its process ended while it waited to begin"


def test_launch_without_its_device_changes_nothing(root: Path, config_path: Path, interpreter: Path) -> None:
    run = runs.create(load_config(config_path, ["device=cuda:99"]))
    with pytest.raises(RunError, match="this machine has . CUDA devices"):
        runs.launch(run)
    assert run.status().state == "new"


def test_folders_that_are_no_runs_are_refused_by_everything(
    three: list[Run], root: Path, interpreter: Path
) -> None:
    outside = root.parent / "00009-outside"
    os.rename(three[2].path, outside)
    (root / "00008-link").symlink_to(outside)
    (root / "00010-empty").mkdir()
    hostile = [
        outside,
        root / ".." / "00009-outside",
        root / "00008-link",
        root / "00010-empty",
        root,
        root / "..",
        root / "00077-none",
    ]
    for path in hostile:
        for act in (runs.launch, runs.stop, runs.delete):
            with pytest.raises(RunError, match="is not a run in"):
                act(Run(path))
    assert (outside / "status.json").is_file()
    assert [run.name for run in runs.list_runs()] == [run.name for run in three[:2]]


def test_only_a_running_run_can_be_stopped(root: Path, config_path: Path) -> None:
    run = runs.create(load_config(config_path))
    with pytest.raises(RunError, match="is not running: new"):
        runs.stop(run)
    write_status(run.status_file, replace(run.status(), state="running", pid=2**22 + 1))
    with pytest.raises(RunError, match="is not running: killed"):
        runs.stop(run)
