from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.runs import Run, RunError, Status
from sdviz.runs.queue import devices_of, runs_before
from sdviz.runs.status import living_process, write_status

Occupied = Callable[..., None]


@pytest.fixture
def three(root: Path, config_path: Path) -> list[Run]:
    return [runs.create(load_config(config_path)) for _ in range(3)]


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of Python: says how it was called and sleeps, as one that is importing for long."""
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


# --- launch and stop ------------------------------------------------------------------------------


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


# --- delete ---------------------------------------------------------------------------------------


def test_delete_takes_the_folder_and_nothing_else(three: list[Run], root: Path) -> None:
    kept = root.parent / "precious"
    kept.mkdir()
    (kept / "file").touch()
    (three[1].path / "link").symlink_to(kept)
    runs.delete(three[1])
    assert [run.name for run in runs.list_runs()] == [three[0].name, three[2].name]
    assert sorted(p.name for p in root.iterdir()) == [".lock", three[0].name, three[2].name]
    assert (kept / "file").is_file()
    with pytest.raises(RunError, match="is not a run in"):
        runs.delete(three[1])


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_run_at_work_is_not_deleted(three: list[Run], occupied: Occupied, state: str) -> None:
    occupied(three[0], state)
    with pytest.raises(RunError, match=f"{three[0].name} is {state}: stop it first"):
        runs.delete(three[0])
    assert three[0].status().state == state


def test_a_damaged_run_can_be_deleted(three: list[Run]) -> None:
    three[0].status_file.write_text("{")
    runs.delete(three[0])
    assert len(runs.list_runs()) == 2


# --- the queue ------------------------------------------------------------------------------------


def test_which_runs_come_first(three: list[Run], occupied: Occupied) -> None:
    first, second, run = three
    mine = replace(run.status(), devices=("cpu",), submitted=100.0)
    assert runs_before(run, mine) == []
    # at work on the device: ahead, whenever it was asked for
    occupied(second, "running", submitted=200.0)
    assert runs_before(run, mine) == [second]
    # in the queue: ahead where it was there before
    occupied(first, "queued", submitted=50.0)
    assert runs_before(run, mine) == [second, first]
    occupied(first, "queued", submitted=150.0)
    assert runs_before(run, mine) == [second]
    # of two at the same moment one goes first
    occupied(first, "queued", submitted=100.0)
    assert runs_before(run, mine) == [second, first]
    assert runs_before(first, first.status()) == [second]
    # another device, another machine, a dead process and a damaged folder stand in nobody's way
    occupied(second, "running", "cuda:0")
    write_status(first.status_file, replace(first.status(), state="running", host="gpu-box"))
    assert runs_before(run, mine) == []
    write_status(first.status_file, replace(first.status(), state="running", pid=2**22 + 1))
    second.status_file.write_text("{")
    assert runs_before(run, mine) == []


def test_a_run_waits_for_its_device_and_says_so(
    three: list[Run], occupied: Occupied, sleeper: psutil.Process
) -> None:
    occupied(three[0])
    seen: list[Status] = []

    def on_wait(status: Status) -> None:
        seen.append(three[1].status())
        assert seen[-1] == status
        sleeper.kill()

    assert runs.execute(three[1], on_wait=on_wait).state == "done"
    (status,) = seen
    assert (status.state, status.queue_place, status.waits_for) == ("queued", 1, (three[0].name,))
    assert status.devices == ("cpu",)
    end = three[1].status()
    assert (end.queue_place, end.waits_for) == (None, ())
    assert set(end.stage_sec) == {"pseudo_labels", "clusterer", "diffusion", "bundle"}


def test_a_run_in_the_queue_can_be_stopped(three: list[Run], occupied: Occupied) -> None:
    occupied(three[0])
    status = runs.execute(three[1], on_wait=lambda status: os.kill(os.getpid(), signal.SIGTERM))
    assert (status.state, status.stage, status.queue_place, status.error) == ("cancelled", "", None, None)
    assert three[1].status() == status
    assert not (three[1].path / "stats.jsonl").exists()


def test_now_does_not_wait(three: list[Run], occupied: Occupied) -> None:
    occupied(three[0])
    waited: list[Status] = []
    assert runs.execute(three[1], on_wait=waited.append, now=True).state == "done"
    assert not waited


def test_devices_are_named_by_their_place_in_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cpu") == ("cpu",)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert devices_of("cuda") == ("cuda:0",)
    assert devices_of("auto") == ("cuda:0",)
    assert devices_of("cuda:2") == ("cuda:2",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert devices_of("cuda:1") == ("cuda:1",)
    assert devices_of("cuda") == ("cuda:3",)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert devices_of("cuda") == ("cuda:3", "cuda:1")
