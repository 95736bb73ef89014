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
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, out + errors


def durations(run: runs.Run) -> dict[str, float]:
    """Seconds that each stage took, by the log: its lines begin with the time."""
    begun: list[tuple[str, float]] = []
    for line in (run.path / "log.txt").read_text().splitlines():
        words = line.split()
        if len(words) == 4 and words[2] == "stage":
            begun.append((words[3], time.mktime(time.strptime(f"{words[0]} {words[1]}", "%Y-%m-%d %H:%M:%S"))))
    ends = [at for _, at in begun[1:]] + [begun[-1][1] + 1]
    return {stage: max(1.0, end - at) for (stage, at), end in zip(begun, ends, strict=True)}


def test_killed_at_ten_random_moments_it_ends_in_the_same_bundle(root: Path, tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, diffusion_steps=300, save_every_sec=0.2)
    finish(start("run", config))
    whole = runs.find("1")
    expected = Bundle.load(whole.bundle, device="cpu").manifest.files
    took = durations(whole)
    names = stage_names(whole.config())
    assert set(took) == set(names)

    # every stage once, then some again: wait for it, and kill at a random moment of it
    dice = random.Random(5)
    again = dice.sample([name for name in names if name != "bundle"], N_KILLS - len(names) + 1)
    victims = sorted([*names[:-1], *again], key=names.index)
    assert len(victims) == N_KILLS
    process = start("run", config)
    killed_in = []
    for victim in victims:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, process.communicate()
            found = [run for run in runs.list_runs() if run.name.startswith("00002")]
            status = found[0].status() if found and found[0].status_file.is_file() else None
            if (
                status
                and status.state == "running"
                and names.index(status.stage or names[0]) >= names.index(victim)
            ):
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(dice.random() * 0.8 * took[victim])
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        status = runs.find("2").status()
        assert status.state in ("killed", "done")
        if status.state == "done":
            break
        killed_in.append(status.stage)
        process = start("resume", "2")
    assert len(killed_in) >= N_KILLS - 1, killed_in
    assert len(set(killed_in)) >= 5, killed_in
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
