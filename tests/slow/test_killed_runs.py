"""A run through every stage, killed again and again, ends as one left alone; so do two processes at one run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdviz import runs
from sdviz.bundle import Bundle
from sdviz.pipeline import stage_names
from tests.patience import patience
from tests.tiny_runs import write_tiny_detector_config

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
N_KILLS = 10


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    # the same number of threads in every process, which the same bits need
    for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(key, "1")
    return tmp_path / "runs"


def start(*args: object, launcher: tuple[str, ...] = ("-m", "sdviz")) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    out, errors = process.communicate(timeout=patience(600))
    assert process.returncode == 0, out + errors


def stage_of(number: int) -> str:
    """The stage that a run is at, "" while it is at none."""
    found = [run for run in runs.list_runs() if run.name.startswith(f"{number:05d}")]
    if not found or not found[0].status_file.is_file():
        return ""
    status = found[0].status()
    return status.stage if status.state == "running" else ""


def test_killed_at_ten_random_moments_it_ends_in_the_same_bundle(root: Path, tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, 500, save_every_sec=0.2, n_each=20, steps=250, epochs=10)
    process = start("run", config)
    seen: dict[str, list[float]] = {}
    while process.poll() is None:
        now = time.monotonic()
        seen.setdefault(stage_of(1), [now, now])[1] = now
        time.sleep(0.01)
    finish(process)
    whole = runs.find("1")
    expected = Bundle.load(whole.bundle, device="cpu").manifest.files
    names = stage_names(whole.config())
    took = {stage: last - first for stage, (first, last) in seen.items()}
    assert set(names) - {"bundle"} <= set(took)

    # every stage once, then the longest again: wait for it, and kill at a random moment of its first half
    rng = random.Random(5)
    longest = sorted(took, key=lambda name: -took[name] if name in names else 0.0)
    victims = sorted([*names, *longest][:N_KILLS], key=names.index)
    process = start("run", config)
    killed_in = []
    for victim in victims:
        deadline = time.monotonic() + patience(300)
        while (stage := stage_of(2)) == "" or names.index(stage) < names.index(victim):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        # the machine may be faster by now than it was for the undisturbed run: never wait a stage out
        share = 0.2 if victim == names[-1] else 0.5
        moment = time.monotonic() + rng.random() * share * took.get(victim, 0.0)
        while time.monotonic() < moment and stage_of(2) == victim:
            time.sleep(0.002)
        killed_in.append(stage_of(2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert runs.find("2").status().state == "killed"
        process = start("resume", "2")
    assert len(killed_in) == N_KILLS
    assert len(set(killed_in)) >= 6, killed_in
    finish(process)
    run = runs.find("2")
    assert run.status().state == "done"
    assert Bundle.load(run.bundle, device="cpu").manifest.files == expected


def test_two_processes_make_the_outliers_that_one_makes(root: Path, tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    finish(start("run", config, "--until", "outliers"))
    alone = runs.find("1")

    # the network of the first run: two processes would train another one
    finish(start("run", config, "--from", "1", "--until", "pseudo_labels"))
    shared = runs.find("2")
    for path in [shared.path / "outliers.done.json", *(shared.path / "outliers").rglob("*.*")]:
        if path.is_file():
            path.unlink()
    assert (shared.path / "diffusion.done.json").is_file()
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "sdviz")
    finish(start("resume", "2", "--until", "outliers", launcher=launcher))

    def files(run: runs.Run) -> dict[str, bytes]:
        folder = run.path / "outliers"
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}

    assert files(shared) == files(alone)
    assert len(files(alone)) > 4
