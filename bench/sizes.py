"""Measures what larger pictures cost: time and memory of U-Net, encoder and detector at 32, 64 and 128 px.

    python bench/sizes.py [--sizes 32 64 128] [--rounds 3] [--steps 3] [--json FILE]

The networks are `small` with random weights. Every measurement is a process of its own with one thread: it does
the work once, then takes the median of single steps. The time is the processor's, which other work on the
machine changes less than the clock's. Memory is the highest resident set of all steps above that of the process
with its networks and pictures; it needs Linux. The sizes take turns; the table has the median over the rounds,
and that of each round's ratio to the first size.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import in_own_process, load_average, process_memory, write_json

from sdviz.config.nodes import DetectorConfig, DiffusionConfig, UNetConfig
from sdviz.detection.training import train_detector
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.diffusion.training import train_noise_predictor
from sdviz.nn.batches import encode
from sdviz.nn.detector import Detector
from sdviz.nn.encoder import Encoder
from sdviz.nn.fastest import processor
from sdviz.nn.inference import prepare_for_inference
from sdviz.nn.loop import Execution
from sdviz.nn.unet import build_noise_predictor

N_CLASSES, N_PICTURES = 10, 256
UNETS = {"small": UNetConfig(), "small, 4x4 unshuffled": UNetConfig(pixel_unshuffle=4)}
# repeats a step, and asks the argument before each whether that is enough
Steps = Callable[[Callable[[], bool]], Any]


def repeated(work: Callable[[], Any], is_over: Callable[[], bool]) -> None:
    """Does the work again and again."""
    while not is_over():
        work()


def sampling(unet: str, size_px: int) -> Steps:
    """One guided step of 8 pictures: 16 rows through the network in its fastest form."""
    model = prepare_for_inference(build_noise_predictor(UNETS[unet], N_CLASSES, size_px), torch.device("cpu"))
    x, labels = torch.randn(16, 3, size_px, size_px), torch.arange(16) % N_CLASSES
    return partial(repeated, lambda: model(x, torch.full((16,), 50), labels))


def unet_training(unet: str, size_px: int) -> Steps:
    """One step of 16 pictures."""
    network = build_noise_predictor(UNETS[unet], N_CLASSES, size_px)
    config = DiffusionConfig(batch_size=16)
    return lambda is_over: train_noise_predictor(
        network,
        *pictures(size_px),
        NoiseSchedule.linear(1000),
        config,
        Execution("cpu", should_stop=is_over),
    )


def features(size_px: int) -> Steps:
    """The encoder's features of 256 pictures."""
    encoder, (images, _) = Encoder(), pictures(size_px)
    return partial(repeated, lambda: encode(encoder, images, "cpu"))


def detector_training(size_px: int) -> Steps:
    """One step of 64 pictures, half of them outliers."""
    detector = Detector(Encoder(), N_CLASSES)
    id_side, outlier_side = pictures(size_px), pictures(size_px)
    config = DetectorConfig(batch_size=64, epochs=1000)
    return lambda is_over: train_detector(
        detector, *id_side, *outlier_side, config, Execution("cpu", should_stop=is_over)
    )


def pictures(size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, uint8 (N,H,W,3), and labels: neither changes the time of a step."""
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 256, (N_PICTURES, size_px, size_px, 3), np.uint8),
        np.arange(N_PICTURES) % N_CLASSES,
    )


WORKS: dict[str, Callable[[int], Steps]] = {
    "U-Net: a step of sampling, 8 pictures": partial(sampling, "small"),
    "U-Net: a step of training, 16 pictures": partial(unet_training, "small"),
    "the same, `pixel_unshuffle: 4`: sampling": partial(sampling, "small, 4x4 unshuffled"),
    "the same, `pixel_unshuffle: 4`: training": partial(unet_training, "small, 4x4 unshuffled"),
    f"encoder: features of {N_PICTURES} pictures": features,
    "detector: a step of training, 64 pictures": detector_training,
}


def probe(work: str, size_px: int, n_steps: int) -> None:
    """Prints, as JSON, the median processor seconds of a step and the bytes that the steps took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps, marks = WORKS[work](size_px), list[float]()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the choice of a form has left
    idle = process_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak

    def is_over() -> bool:
        marks.append(time.process_time())
        return len(marks) == n_steps + 2  # the first step is not timed

    steps(is_over)
    times = [after - before for before, after in zip(marks[1:], marks[2:], strict=False)]
    print(json.dumps({"sec": statistics.median(times), "bytes": process_memory("VmHWM") - idle}))


def cells(found: list[dict[str, float]], first: list[dict[str, float]], key: str, unit: float) -> str:
    """The median of a figure over the rounds, and that of its ratio to the first size."""
    value = statistics.median(one[key] for one in found) / unit
    ratio = statistics.median(one[key] / other[key] for one, other in zip(found, first, strict=True))
    return f"{value:,.0f} | {ratio:.1f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128], help="in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed in each process")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        probe(args.probe[0], int(args.probe[1]), args.steps)
        return

    print(
        f"{processor()}, one thread, torch {torch.__version__}{load_average()};"
        f" {args.rounds} rounds of {args.steps} steps.\n",
        flush=True,
    )
    print("| work | px | ms | ratio | MiB | ratio |\n|---|--:|--:|--:|--:|--:|")
    tree: dict[str, dict[int, list[dict[str, float]]]] = {}
    for work in WORKS:
        tree[work] = {size: [] for size in args.sizes}
        for _ in range(args.rounds):
            for size, found in tree[work].items():
                arguments = ("--probe", work, str(size), "--steps", str(args.steps))
                found.append(in_own_process(__file__, *arguments))
        first = tree[work][args.sizes[0]]
        for size, found in tree[work].items():
            times, memory = cells(found, first, "sec", 1e-3), cells(found, first, "bytes", 2**20)
            print(f"| {work} | {size} | {times} | {memory} |", flush=True)
    print(f"\nAt the end{load_average()}.")
    write_json(args.json, {"processor": processor(), "torch": torch.__version__, "works": tree})


if __name__ == "__main__":
    main()
