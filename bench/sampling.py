"""Times the making of outliers against the plain loop that one would write with diffusers.

    python bench/sampling.py [--bundle checkpoints/shapes] [--repeats 7] [--quick] [--json FILE]

The peer is `UNet2DModel` with `DDIMScheduler` in float32, with two calls per step (with and without the
condition) and the same weights, images, start noise and timesteps, in the same process. The two sides take
turns, each pair has its own seed, and a ratio is the median over the pairs. Only our time includes the drawing
of the start noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import in_own_process, load_average, process_memory, seconds, summary, write_json

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.config.nodes import UNetConfig
from sdviz.diffusion.guidance import GuidedNoise
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.device import device_name, has_fast_bf16
from sdviz.nn.fastest import processor
from sdviz.nn.inference import InferenceModel, prepare_for_inference
from sdviz.nn.pixels import to_images, to_tensor
from sdviz.nn.randomness import image_noise
from sdviz.nn.unet import NoisePredictor, build_noise_predictor
from sdviz.outliers import draw_target_labels

N_IMAGES, START_TIMESTEP, GUIDANCE_SCALE, STEPS = 16, 100, 2.0, 10
REFERENCE_STEPS = START_TIMESTEP
MEMORY_BATCHES = (1, 16, 256)
THROUGHPUT_IMAGES = 1000
CUDA_BAR, FEWER_STEPS_AIM, MAX_DIFFERENCE = 0.25, 0.33, 1.0
# without bfloat16 instructions there is less to gain
CPU_BARS = {torch.bfloat16: 0.6, torch.float32: 0.85}
SPACING_POWER = 3


# --------------------------------------------------------------------------------------------------
# The work, done both ways
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Images with their wrong labels and start noise for one seed."""

    images: np.ndarray
    targets: np.ndarray
    noise: torch.Tensor
    ids: np.ndarray
    seed: int


def make_work(source: data.ImageSet, n_classes: int, seed: int) -> Work:
    """N_IMAGES images, different ones for each seed."""
    rows = np.arange(seed * N_IMAGES, (seed + 1) * N_IMAGES) % len(source)
    taken = source.take(rows)
    targets = draw_target_labels(taken.labels, taken.ids, n_classes, seed)
    noise = image_noise(taken.ids.tolist(), (3, *taken.images.shape[1:3]), seed, "start")
    return Work(taken.images, targets, noise, taken.ids, seed)


@torch.no_grad()
def plain_loop(model: NoisePredictor, schedule: NoiseSchedule, work: Work) -> np.ndarray:
    """The loop that a user of diffusers would write, from uint8 images to uint8 outliers."""
    unet, factor = model.unet, model.pixel_unshuffle
    scheduler = DDIMScheduler(
        num_train_timesteps=len(schedule),
        beta_start=float(schedule.betas[0]),
        beta_end=float(schedule.betas[-1]),
        beta_schedule="linear",
        clip_sample=True,
        set_alpha_to_one=True,
    )
    # the timesteps are multiples of T // n; for n = 90 the last ten are 99, 88, ..., 0
    scheduler.set_timesteps(len(schedule) // ((START_TIMESTEP - 1) // (STEPS - 1)))
    timesteps = scheduler.timesteps[-STEPS:]
    assert timesteps.tolist() == schedule.timesteps(START_TIMESTEP, STEPS)
    device = unet.device
    x_0 = to_tensor(work.images, device)
    x = scheduler.add_noise(x_0, work.noise.to(device), torch.tensor([START_TIMESTEP - 1], device=device))
    condition = torch.tensor(work.targets, device=device)
    null = torch.full_like(condition, model.null_label)
    for t in timesteps.to(device):
        inputs = F.pixel_unshuffle(x, factor) if factor > 1 else x
        eps_cond = unet(inputs, t, class_labels=condition).sample
        eps_uncond = unet(inputs, t, class_labels=null).sample
        if model.phases is not None:
            eps_cond, eps_uncond = (model.phases(e, inputs, t.expand(len(x))) for e in (eps_cond, eps_uncond))
        eps = eps_uncond + (1 + GUIDANCE_SCALE) * (eps_cond - eps_uncond)
        x = scheduler.step(F.pixel_shuffle(eps, factor) if factor > 1 else eps, t, x).prev_sample
    return to_images(x)


def ours(
    model: InferenceModel,
    null_label: int,
    schedule: NoiseSchedule,
    solver: str,
    timesteps: Sequence[int],
    device: torch.device,
    work: Work,
) -> np.ndarray:
    """The same with sdviz: start noise, guidance in one doubled batch, sampler."""
    shape = (3, *work.images.shape[1:3])
    noise = image_noise(work.ids.tolist(), shape, work.seed, "start").to(device)
    x_s = schedule.add_noise(to_tensor(work.images, device), noise, START_TIMESTEP)
    condition = torch.tensor(work.targets, device=device)
    eps_fn = GuidedNoise(model, condition, null_label, GUIDANCE_SCALE, schedule)
    return to_images(SAMPLERS[solver](eps_fn, x_s, timesteps, schedule))


def even_in_sigma(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Timesteps from S-1 to 0, evenly spaced in sigma^(1/3), so closer together at low noise."""
    sigmas = np.array([schedule.sigma(t + 1) for t in range(START_TIMESTEP)])
    root = np.linspace(sigmas[-1] ** (1 / SPACING_POWER), sigmas[0] ** (1 / SPACING_POWER), steps)
    chosen = [int(np.abs(sigmas - r**SPACING_POWER).argmin()) for r in root]
    for i in range(steps - 2, -1, -1):
        chosen[i] = max(chosen[i], chosen[i + 1] + 1)
    return chosen


# --------------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Times of the two sides."""

    plain_sec: float
    ours_sec: float
    ratio: float
    ratio_min: float
    ratio_max: float
    repeats: int
    difference: float


def compare(
    plain: Callable[[Work], np.ndarray],
    mine: Callable[[Work], np.ndarray],
    works: Sequence[Work],
    device: torch.device,
) -> Pairs:
    """Times both sides on each piece of work; they begin in turn.

    Returns:
        Medians over the pairs; `difference` is the largest mean absolute difference of a pair, in grey levels.
    """
    plain(works[-1]), mine(works[-1])
    times: list[tuple[float, float]] = []
    differences = []
    for i, work in enumerate(works):
        sides = {"plain": plain, "ours": mine}
        taken, pictures = {}, {}
        for name in sorted(sides, reverse=i % 2 == 0):
            taken[name], pictures[name] = seconds(partial(sides[name], work), device)
        times.append((taken["plain"], taken["ours"]))
        differences.append(mean_difference(pictures["plain"], pictures["ours"]))
    return Pairs(*summary(times), len(times), max(differences))


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).mean())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, the best of nine."""
    n = 8192 if device.type == "cuda" else 1536
    a = torch.randn(n, n, device=device).to(dtype)
    taken = [seconds(lambda: a @ a, device)[0] for _ in range(9)]
    return 2 * n**3 / min(taken)


def call_flops(model: NoisePredictor) -> int:
    """Floating-point operations of one call on one image in float32, as PyTorch counts them."""
    side = model.unet.config["sample_size"] * model.pixel_unshuffle
    zero = torch.zeros(1, dtype=torch.int64)
    model = model.to("cpu")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, side, side), zero, zero)
    return counter.get_total_flops()


# --------------------------------------------------------------------------------------------------
# The figures
# --------------------------------------------------------------------------------------------------


def fewer_steps(bundle: Bundle, works: Sequence[Work]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Finds the fewest steps that end as close to the 100-step result as the plain 10-step loop.

    The reference is DDIM over all 100 timesteps in float32 from the same start noise. Distances are mean
    absolute differences in grey levels over all images.

    Returns:
        The closest candidate with the fewest steps, or None, and all measured distances.
    """
    device, schedule, null = bundle.device, bundle.schedule, bundle.n_clusters
    exact = InferenceModel(bundle.noise_predictor, torch.float32, "float32")
    every = list(range(REFERENCE_STEPS - 1, -1, -1))
    references = [ours(exact, null, schedule, "ddim", every, device, w) for w in works]

    def distance(pictures: Callable[[Work], np.ndarray]) -> float:
        apart = [mean_difference(pictures(w), r) for w, r in zip(works, references, strict=True)]
        return statistics.fmean(apart)

    bar = distance(partial(plain_loop, bundle.noise_predictor, schedule))
    tried: list[dict[str, Any]] = []
    for steps in range(STEPS - 1, 1, -1):
        even_in_t = schedule.timesteps(START_TIMESTEP, steps)
        candidates = {"t": even_in_t, f"sigma^(1/{SPACING_POWER})": even_in_sigma(schedule, steps)}
        for solver in ("dpmpp_2m", "ddim"):
            for spacing, timesteps in candidates.items():
                run = partial(ours, bundle.inference, null, schedule, solver, timesteps, device)
                row = {"solver": solver, "steps": steps, "even in": spacing, "timesteps": timesteps}
                tried.append(row | {"distance": distance(run)})
        if all(row["distance"] > bar for row in tried[-4:]):
            break
    close = [row for row in tried if row["distance"] <= bar]
    best = min(close, key=lambda row: (row["steps"], row["distance"]), default=None)
    return best, {"plain_distance": bar, "tried": tried}


def throughput(bundle: Bundle, source: data.ImageSet) -> float:
    """Outliers per second of `Bundle.generate`, from uint8 to uint8."""

    def generate(some: data.ImageSet) -> None:
        bundle.generate(
            some.images,
            some.labels,
            START_TIMESTEP,
            GUIDANCE_SCALE,
            num_inference_steps=STEPS,
            solver="ddim",
            ids=some.ids,
        )

    generate(source.take(np.arange(64)))
    many = source.take(np.arange(THROUGHPUT_IMAGES) % len(source))
    return THROUGHPUT_IMAGES / seconds(partial(generate, many), bundle.device)[0]


def probe_memory(path: str, batch_size: int) -> None:
    """Prints, as JSON, the idle and the peak memory of one batch; for a process of its own."""
    bundle = Bundle.load(path)
    source = data.load(bundle.manifest.dataset, "test", limit=batch_size)
    assert bundle.inference is not None
    on_cuda = bundle.device.type == "cuda"
    idle = torch.cuda.memory_allocated(bundle.device) if on_cuda else process_memory("VmRSS")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(bundle.device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    bundle.generate(
        source.images,
        source.labels,
        START_TIMESTEP,
        GUIDANCE_SCALE,
        num_inference_steps=2,
        solver="ddim",
        ids=source.ids,
        batch_size=batch_size,
    )
    peak = torch.cuda.max_memory_allocated(bundle.device) if on_cuda else process_memory("VmHWM")
    print(json.dumps({"batch_size": batch_size, "idle_bytes": idle, "peak_bytes": peak}))


def memory(path: str) -> list[dict[str, int]]:
    """`probe_memory` for each batch size."""
    return [in_own_process(__file__, "--bundle", path, "--probe-memory", str(n)) for n in MEMORY_BATCHES]


def cuda_figures(source: data.ImageSet, repeats: int) -> dict[str, Any]:
    """Times the paper's U-Net with random weights against the plain float32 loop, on the GPU."""
    device = torch.device("cuda")
    schedule = NoiseSchedule.linear(1000)
    torch.manual_seed(0)
    model = build_noise_predictor(UNetConfig(arch="ddpm"), 10, 32).eval().requires_grad_(False)
    flops = call_flops(model)
    inference = prepare_for_inference(model, device)
    model = model.to(device)
    timesteps = schedule.timesteps(START_TIMESTEP, STEPS)
    pairs = compare(
        partial(plain_loop, model, schedule),
        partial(ours, inference, model.null_label, schedule, "ddim", timesteps, device),
        [make_work(source, 10, seed) for seed in range(repeats)],
        device,
    )
    calls_per_sec = STEPS / pairs.ours_sec
    rate = matrix_rate(device, inference.dtype)
    return {
        "device": device_name(device),
        "network": inference.description,
        "pairs": asdict(pairs),
        "calls_per_sec": calls_per_sec,
        "flops_per_image": flops,
        "matrix_flops_per_sec": rate,
        "share_of_matrix_rate": calls_per_sec * 2 * N_IMAGES * flops / rate,
        "peak_bytes": torch.cuda.max_memory_allocated(device),
    }


# --------------------------------------------------------------------------------------------------
# The report
# --------------------------------------------------------------------------------------------------


def verdict(holds: bool) -> str:
    """The word for the table."""
    return "holds" if holds else "MISSED"


def print_pairs(name: str, pairs: Pairs, bar: str, holds: bool) -> None:
    """One row of the table of ratios."""
    print(
        f"| {name} | {pairs.plain_sec:.2f} s | {pairs.ours_sec:.2f} s | **{pairs.ratio:.2f}** |"
        f" {pairs.ratio_min:.2f} .. {pairs.ratio_max:.2f} | {pairs.repeats} |"
        f" {pairs.difference:.2f} levels | {bar} | {verdict(holds)} |",
        flush=True,
    )


def main() -> int:
    """Measures and prints; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="checkpoints/shapes")
    parser.add_argument("--repeats", type=int, default=7, help="number of pairs")
    parser.add_argument("--quick", action="store_true", help="only the same solver and steps")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--probe-memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe_memory:
        probe_memory(args.bundle, args.probe_memory)
        return 0

    bundle = Bundle.load(args.bundle, device="cpu")
    schedule, null = bundle.schedule, bundle.n_clusters
    source = data.load(bundle.manifest.dataset, "test", limit=1000)
    works = [make_work(source, bundle.n_clusters, seed) for seed in range(args.repeats)]
    timesteps = schedule.timesteps(START_TIMESTEP, STEPS)
    print(
        f"{N_IMAGES} outliers, S={START_TIMESTEP}, w={GUIDANCE_SCALE:g}, {STEPS} DDIM steps. Bundle"
        f" {bundle.hash[:12]}, torch {torch.__version__}, {device_name(bundle.device)}, {processor()}"
        f"{load_average()}.\n"
        f"Our network: {bundle.inference.description}.\n",
        flush=True,
    )

    plain = partial(plain_loop, bundle.noise_predictor, schedule)
    mine = partial(ours, bundle.inference, null, schedule)

    # 1. the same solver, the same steps
    same = compare(plain, partial(mine, "ddim", timesteps, bundle.device), works, bundle.device)
    bar = CPU_BARS[torch.bfloat16 if has_fast_bf16(bundle.device) else torch.float32]
    bars = {"same_steps": same.ratio <= bar and same.difference < MAX_DIFFERENCE}
    print("| CPU | plain | ours | ratio | min .. max | pairs | difference | bar | |")
    print("|---|--:|--:|--:|--:|--:|--:|---|---|")
    print_pairs("same solver and steps", same, f"{bar:g}, difference below 1", bars["same_steps"])
    if args.quick:
        return 0 if bars["same_steps"] else 1
    flops = call_flops(bundle.noise_predictor)
    rate = matrix_rate(bundle.device, bundle.inference.dtype)
    share = STEPS * 2 * N_IMAGES * flops / same.ours_sec / rate

    # 2. fewer steps of a better solver
    best, search = fewer_steps(bundle, works[:3])
    better = None
    if best is not None:
        run = partial(mine, best["solver"], best["timesteps"], bundle.device)
        better = compare(plain, run, works, bundle.device)
        name = f"{best['steps']} steps of {best['solver']}"
        print_pairs(name, better, f"{FEWER_STEPS_AIM:g} (aim)", better.ratio <= FEWER_STEPS_AIM)
    precision = str(bundle.inference.dtype).removeprefix("torch.")
    print(
        f"\nOne call on one image is {flops / 1e9:.2f} GFLOP; with the same steps our side runs at {share:.0%}"
        f" of the {rate / 1e9:.0f} GFLOP/s measured for a {precision} matrix product.\n"
    )
    print(
        f"Mean distance to {REFERENCE_STEPS} DDIM steps in float32 from the same start noise, in grey levels:"
        f" {search['plain_distance']:.2f} for the plain loop with {STEPS}; ours with fewer:\n"
    )
    print("| solver | steps | evenly spaced in | distance | timesteps |\n|---|--:|---|--:|---|")
    for t in search["tried"]:
        print(f"| {t['solver']} | {t['steps']} | {t['even in']} | {t['distance']:.2f} | {t['timesteps']} |")

    # 3. throughput and memory, on the bundle's own device
    there = Bundle.load(args.bundle)
    images_per_sec = throughput(there, source)
    print(
        f"\n{THROUGHPUT_IMAGES:,} outliers on {device_name(there.device)}: **{images_per_sec:.1f} images/s**"
        f" ({images_per_sec * 2 * STEPS:.0f} evaluations/s)."
    )
    memories: list[dict[str, int]] = []
    if there.device.type == "cuda" or Path("/proc/self/clear_refs").exists():
        memories = memory(args.bundle)
        print("\n| batch | peak above idle | idle |\n|--:|--:|--:|")
        for m in memories:
            above = (m["peak_bytes"] - m["idle_bytes"]) / 2**20
            print(f"| {m['batch_size']} | {above:.0f} MiB | {m['idle_bytes'] / 2**20:.0f} MiB |")
    else:
        print("\nPeak memory: not measured: this system has no /proc/self/clear_refs.")

    # 4. the large network
    cuda = cuda_figures(source, args.repeats) if torch.cuda.is_available() else None
    if cuda is None:
        print("\nCUDA, `ddpm` U-Net: not measured: no CUDA.")
    else:
        pairs = cuda["pairs"]
        bars["cuda"] = pairs["ratio"] <= CUDA_BAR
        rows = (
            ("device", cuda["device"]),
            ("network", f"`ddpm` U-Net, random weights; ours in {cuda['network']}, plain in float32"),
            ("plain", f"{pairs['plain_sec']:.3f} s"),
            ("ours", f"{pairs['ours_sec']:.3f} s"),
            ("ratio", f"**{pairs['ratio']:.2f}** (bar {CUDA_BAR:g}: {verdict(bars['cuda'])})"),
            ("calls", f"{cuda['calls_per_sec']:.0f} a second, of {2 * N_IMAGES} rows"),
            ("matrix product", f"{cuda['matrix_flops_per_sec'] / 1e12:.0f} TFLOP/s, measured"),
            ("share of it", f"{cuda['share_of_matrix_rate']:.0%}"),
            ("peak memory", f"{cuda['peak_bytes'] / 2**20:.0f} MiB"),
        )
        print("\n| CUDA | |\n|---|---|")
        for name, value in rows:
            print(f"| {name} | {value} |")

    tree = {
        "bundle_sha256": bundle.hash,
        "torch": torch.__version__,
        "device": device_name(bundle.device),
        "network": bundle.inference.description,
        "same_steps": asdict(same),
        "share_of_matrix_rate": share,
        "fewer_steps": search | {"chosen": best, "pairs": None if better is None else asdict(better)},
        "images_per_sec": images_per_sec,
        "throughput_images": THROUGHPUT_IMAGES,
        "memory": memories,
        "cuda": cuda,
        "bars": bars,
    }
    write_json(args.json, tree)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
