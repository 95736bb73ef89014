"""Runs as processes of their own: stopped, killed, without room on the disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdviz import runs
from sdviz.bundle import Bundle
from sdviz.config.reading import load_config
from sdviz.files import leftovers
from tests.patience import patience
from tests.tiny_runs import write_tiny_config

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# the same number of threads in every process, which the same bits need
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    return tmp_path / "runs"


def start(*args: object, launcher: tuple[str, ...] = ("-m", "sdviz")) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(name: str, stage: str, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + patience(300)
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        found = [run for run in runs.list_runs() if run.name == name]
        if found and (found[0].path / "status.json").is_file():
            status = found[0].status()
            if status.stage == stage and status.step >= step and status.state == "running":
                return
        time.sleep(0.02)
    raise AssertionError(f"{name} did not reach step {step} of {stage}")


def weights(run: runs.Run) -> dict[str, str]:
    """SHA-256 of every file of the bundle but bundle.json, which has times in it."""
    return Bundle.load(run.bundle, device="cpu").manifest.files


def test_a_killed_run_is_not_running_and_resumed_it_gives_the_same(root: Path, tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path, 60, 400, save_every_sec=0.3)
    whole = start("run", config)
    assert whole.wait(patience(300)) == 0, whole.communicate()
    expected = weights(runs.find("1"))

    name = "00002-pictures-tiny"
    process = start("run", config)
    for stage, step in (("clusterer", 20), ("diffusion", 60), ("diffusion", 200)):
        wait_for_step(name, stage, step, process)
        assert runs.find("2").status().state == "running"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert runs.find("2").status().state == "killed"
        process = start("resume", "2")
    assert process.wait(patience(300)) == 0, process.communicate()
    run = runs.find("2")
    assert run.status().state == "done"
    assert weights(run) == expected
    steps = [line["step"] for line in run.stats() if line["stage"] == "diffusion"]
    assert steps == list(range(20, 401, 20))


def test_stop_ends_a_running_run_with_its_state_saved(root: Path, tmp_path: Path) -> None:
    process = start("run", write_tiny_config(tmp_path, 20, 100_000))
    wait_for_step("00001-pictures-tiny", "diffusion", 40, process)
    # a second process cannot work in the same folder meanwhile
    second = start("resume", "1")
    _, errors = second.communicate(timeout=patience(120))
    assert second.returncode == 2
    assert "is running already, in process" in errors.splitlines()[-1]

    stopper = start("stop", "1")
    out, errors = stopper.communicate(timeout=patience(120))
    assert (stopper.returncode, out) == (0, "00001-pictures-tiny: cancelled\n"), errors
    _, errors = process.communicate(timeout=patience(60))
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith(
        "error: 00001-pictures-tiny cancelled in stage diffusion; go on with"
    )
    status = runs.find("1").status()
    assert (status.state, status.error) == ("cancelled", None)
    assert (runs.find("1").path / "diffusion" / "state.pt").is_file()


def test_two_runs_at_once_do_not_touch_each_other(root: Path, tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path, 20, 60)
    processes = [start("run", config) for _ in range(2)]
    for process in processes:
        assert process.wait(patience(300)) == 0, process.communicate()
    first, second = runs.list_runs()
    assert [run.status().state for run in (first, second)] == ["done", "done"]
    assert weights(first) == weights(second)


def test_a_file_system_that_takes_no_more_ends_as_failed(root: Path, tmp_path: Path) -> None:
    """Files cannot grow over 100,000 bytes: the resume state of diffusion does not fit."""
    config = write_tiny_config(tmp_path, 20, 100_000, save_every_sec=0.1)
    limited = (
        "import resource, sys; from sdviz.cli import main; sys.argv[0] = 'sdviz';"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)); main()"
    )
    process = start("run", config, launcher=("-c", limited))
    _, errors = process.communicate(timeout=patience(300))
    assert process.returncode == 1, errors
    (run,) = runs.list_runs()
    status = run.status()
    assert (status.state, status.stage) == ("failed", "diffusion")
    assert status.error
    assert not leftovers(run.path)
    assert (run.path / "clusterer.done.json").is_file()
    json.loads((run.path / "status.json").read_text())


def test_processes_of_a_launcher_share_one_run(root: Path, tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path, 20, 40)
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "sdviz")
    process = start("run", config, launcher=launcher)
    out, errors = process.communicate(timeout=patience(600))
    assert process.returncode == 0, errors
    (run,) = runs.list_runs()
    assert out.strip() == str(run.bundle)
    assert run.status().state == "done"
    assert [(line["stage"], line["step"]) for line in run.stats()] == [
        ("clusterer", 20),
        ("diffusion", 20),
        ("diffusion", 40),
    ]
    assert Bundle.load(run.bundle, device="cpu").class_names == ("blue", "green", "red")


def test_a_launched_run_outlives_its_launcher_and_the_next_waits_for_it(root: Path, tmp_path: Path) -> None:
    long = write_tiny_config(tmp_path / "long", 20, 100_000)
    first = runs.create(load_config(long))
    second = runs.create(load_config(write_tiny_config(tmp_path / "short", 20, 20)))
    script = "import sys; from sdviz import runs; runs.launch(runs.find(sys.argv[1]))"
    for run in (first, second):
        launcher = subprocess.run([sys.executable, "-c", script, run.name], cwd=ROOT, timeout=patience(120))
        assert launcher.returncode == 0

    def reaches(run: runs.Run, state: str) -> None:
        deadline = time.monotonic() + patience(300)
        while run.status().state != state:
            assert time.monotonic() < deadline, run.status()
            time.sleep(0.1)

    reaches(first, "running")
    deadline = time.monotonic() + patience(120)
    while second.status().queue_place is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    status = second.status()
    assert (status.state, status.queue_place, status.waits_for) == ("queued", 1, (first.name,))
    assert first.status().state == "running"
    assert runs.stop(first).state == "cancelled"
    reaches(second, "done")
    assert Bundle.load(second.bundle, device="cpu").class_names == ("blue", "green", "red")
    assert "place" not in (first.path / "output.txt").read_text()
    assert f"place 1 in the queue for cpu: {first.name}" in (second.path / "output.txt").read_text()
