"""Training in two processes that share the gradient gives what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

SCRIPT = """
import os, sys, time
from pathlib import Path

import numpy as np
import torch

from sdviz.config.nodes import DiffusionConfig, UNetConfig
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.diffusion.training import train_noise_predictor
from sdviz.nn.loop import Execution
from sdviz.nn.unet import build_noise_predictor

torch.set_num_threads(1)
out, case = Path(sys.argv[1]), sys.argv[2]
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

settings = dict(batch_size=8, total_steps=10, learning_rate=1e-3, warmup_steps=2, ema_decay=0.9)
settings["mixed_precision"] = "no"
stop = None
state_path = None
if case == "half the batch":
    settings["batch_size"] = 4
if case == "odd batch":
    settings["batch_size"] = 7
if case == "stop":
    # only the main process is told to stop, and the other must not wait for it for ever
    asked = iter(range(10**6))
    stop = lambda: next(asked) >= 5 and rank == 0
    state_path = out / "stop.pt"
if case == "resume":
    state_path = out / "stop.pt"
if case == "time":
    # clocks that differ from process to process
    time.sleep(rank)
    settings.update(total_steps=10**6, time_limit_sec=2.0, cooldown=1.0)

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
# the main process's start counts
torch.manual_seed(rank)
config = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=1)
model = build_noise_predictor(config, 3, 8)
losses = []
ema, complete = train_noise_predictor(
    model, images, np.arange(12) % 3, NoiseSchedule.linear(), DiffusionConfig(**settings),
    Execution("cpu", state_path, lambda report: losses.append(report.loss), stop),
)
x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    eps = ema(x, torch.tensor([5, 100, 400, 900]), torch.tensor([0, 1, 2, 3]))
result = {"world": world, "ema": ema.state_dict(), "eps": eps, "complete": complete, "losses": losses}
torch.save(result, out / f"{case} {world} {rank}.pt")
"""


def train(folder: Path, case: str, processes: int) -> subprocess.CompletedProcess[str]:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), case]
    if processes > 1:
        # `accelerate launch --cpu` starts one process whatever it is told, unless MPI is there; what it starts
        # on several GPUs is this launcher
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launcher, *command[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


def result(folder: Path, case: str, processes: int, rank: int = 0) -> dict:
    return torch.load(folder / f"{case} {processes} {rank}.pt", weights_only=True)


def difference(a: dict, b: dict) -> float:
    """The largest between the two networks' weights."""
    return max((a["ema"][name] - b["ema"][name]).abs().max().item() for name in a["ema"])


def test_two_processes_train_the_network_of_one(tmp_path: Path) -> None:
    for case, processes in (("whole", 1), ("half the batch", 1), ("whole", 2)):
        done = train(tmp_path, case, processes)
        assert done.returncode == 0, done.stderr
    one, half = result(tmp_path, "whole", 1), result(tmp_path, "half the batch", 1)
    first, second = (result(tmp_path, "whole", 2, rank) for rank in (0, 1))
    assert (first["world"], second["world"]) == (2, 2)

    # both processes end with the same network, though they started from different ones
    assert difference(first, second) == 0
    # it is the one that a single process trains on the same batches, and not that of half of each batch
    assert difference(one, first) < 1e-4
    assert (one["eps"] - first["eps"]).abs().max() < 1e-5
    assert difference(one, half) > 1e-3
    # the loss reported is that of the whole batch, by the main process alone
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert second["losses"] == []


def test_stop_and_resume_over_two_processes(tmp_path: Path) -> None:
    for case in ("whole", "stop", "resume"):
        done = train(tmp_path, case, 2)
        assert done.returncode == 0, done.stderr
        if case == "stop":
            assert torch.load(tmp_path / "stop.pt", weights_only=True)["step"] == 5
    for rank in (0, 1):
        assert not result(tmp_path, "stop", 2, rank)["complete"]
        assert result(tmp_path, "resume", 2, rank)["complete"]
        assert difference(result(tmp_path, "resume", 2, rank), result(tmp_path, "whole", 2)) == 0


def test_the_time_limit_is_the_same_moment_for_both(tmp_path: Path) -> None:
    done = train(tmp_path, "time", 2)
    assert done.returncode == 0, done.stderr
    first, second = (result(tmp_path, "time", 2, rank) for rank in (0, 1))
    assert first["complete"] and second["complete"]
    assert difference(first, second) == 0


def test_a_batch_that_two_cannot_share_is_refused(tmp_path: Path) -> None:
    done = train(tmp_path, "odd batch", 2)
    assert done.returncode != 0
    assert "batch_size 7 is not a multiple of the 2 processes" in done.stderr
