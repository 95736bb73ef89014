"""Times the training of the noise predictor against diffusers' own example loop.

    python bench/training.py [--repeats 5] [--steps 20] [--batch-size 64] [--json FILE]

The peer is examples/unconditional_image_generation/train_unconditional.py of diffusers with its defaults (mixed
precision "no", AdamW, cosine schedule with warm-up, gradients clipped at 1, a DataLoader without workers over
PIL pictures with torchvision's transforms, the loss read in every step), and with its `EMAModel`, because ours
has an average of weights too. Both sides train the same network from the same weights, with class labels, on
the same images and batch size. After some steps to warm up, whole steps are timed: loading, drawing, forward,
backward, update, average. On CUDA ours is bfloat16, channels last and compiled; compiling is not timed. The two
sides take turns, and a ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, ToTensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import load_average, summary, write_json

from sdviz import data
from sdviz.config.nodes import DiffusionConfig, UNetConfig
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.diffusion.training import make_accelerator, train_noise_predictor
from sdviz.nn.device import device_name, has_fast_bf16
from sdviz.nn.loop import Execution
from sdviz.nn.unet import NoisePredictor, build_noise_predictor, n_parameters

CPU_BAR, CUDA_BAR = 1.3, 3.0
N_CLASSES, SIZE_PX = 10, 32
CUDA_BATCH, CUDA_STEPS = 128, 100
CUDA_ROW = "`ddpm` U-Net: bf16, channels-last, compile"
# the length of training for both schedules, which the bench never reaches
TOTAL_STEPS = 100_000


class Clock:
    """Times `steps` steps after `warm` ones; `is_over` is called before every step."""

    def __init__(self, warm: int, steps: int, device: torch.device) -> None:
        self.warm, self.steps, self.device = warm, steps, device
        self.asked, self.started, self.seconds = 0, 0.0, 0.0

    def is_over(self) -> bool:
        """Counts a step; True when all are done."""
        over = self.asked == self.warm + self.steps
        if over or self.asked == self.warm:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            now = time.perf_counter()
            self.seconds, self.started = now - self.started, now
        self.asked += 1
        return over


@dataclass(frozen=True)
class Work:
    """The network and the images for both sides."""

    network: NoisePredictor
    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    device: torch.device


# --------------------------------------------------------------------------------------------------
# The work, done both ways
# --------------------------------------------------------------------------------------------------


class Pictures(torch.utils.data.Dataset):
    """The example's data set of PIL pictures, without Resize and CenterCrop, which would change nothing."""

    def __init__(self, work: Work) -> None:
        self.pictures = [Image.fromarray(image) for image in work.images]
        self.labels = work.labels.tolist()
        self.augmentations = Compose([RandomHorizontalFlip(), ToTensor(), Normalize([0.5], [0.5])])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"input": self.augmentations(self.pictures[i].convert("RGB")), "label": self.labels[i]}


def example_loop(work: Work, seed: int, clock: Clock) -> float:
    """diffusers' example, with class labels; returns the last loss."""
    torch.manual_seed(seed)
    accelerator = make_accelerator(str(work.device), "no")
    network = copy.deepcopy(work.network)
    factor, model = network.pixel_unshuffle, network.unet.train()
    ema = EMAModel(
        model.parameters(),
        decay=0.9999,
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=3 / 4,
        model_cls=type(model),
        model_config=model.config,
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    loader = DataLoader(Pictures(work), batch_size=work.batch_size, shuffle=True, num_workers=0, drop_last=True)
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=TOTAL_STEPS)
    model, optimizer, loader, lr_scheduler = accelerator.prepare(model, optimizer, loader, lr_scheduler)
    ema.to(accelerator.device)
    last = float("nan")
    while True:
        for batch in loader:
            if clock.is_over():
                return last
            clean_images = batch["input"]
            noise = torch.randn(clean_images.shape, device=clean_images.device)
            timesteps = torch.randint(0, 1000, (len(clean_images),), device=clean_images.device)
            noisy_images = scheduler.add_noise(clean_images, noise, timesteps)
            if factor > 1:
                noisy_images, noise = F.pixel_unshuffle(noisy_images, factor), F.pixel_unshuffle(noise, factor)
            with accelerator.accumulate(model):
                prediction = model(noisy_images, timesteps, class_labels=batch["label"]).sample
                loss = F.mse_loss(prediction.float(), noise.float())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                ema.step(model.parameters())
            last = loss.detach().item()


def ours(work: Work, seed: int, clock: Clock) -> float:
    """The same with sdviz; returns the last loss it reported."""
    config = DiffusionConfig(batch_size=work.batch_size, total_steps=TOTAL_STEPS, warmup_steps=500, seed=seed)
    losses = [float("nan")]
    train_noise_predictor(
        copy.deepcopy(work.network),
        work.images,
        work.labels,
        NoiseSchedule.linear(1000),
        config,
        Execution(str(work.device), None, lambda report: losses.append(report.loss), clock.is_over),
    )
    return losses[-1]


# --------------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """The rates of the two sides."""

    plain_images_per_sec: float
    ours_images_per_sec: float
    ratio: float
    ratio_min: float
    ratio_max: float
    repeats: int


def compare(work: Work, steps: int, warm: int, repeats: int) -> Pairs:
    """Times both sides, which begin in turn."""
    sides: dict[str, Callable[[Work, int, Clock], float]] = {"plain": example_loop, "ours": ours}
    rates: list[tuple[float, float]] = []
    for i in range(repeats):
        rate = {}
        for name in sorted(sides, reverse=i % 2 == 0):
            clock = Clock(warm, steps, work.device)
            loss = sides[name](work, i, clock)
            assert not np.isinf(loss)
            rate[name] = steps * work.batch_size / clock.seconds
        rates.append((rate["plain"], rate["ours"]))
        print(f"pair {i + 1}: {rates[-1][0]:.1f} and {rates[-1][1]:.1f} images/s", file=sys.stderr, flush=True)
    return Pairs(*summary(rates), repeats)


def make_work(arch: str, source: data.ImageSet, batch_size: int, device: torch.device) -> Work:
    """A network of random weights and the images."""
    torch.manual_seed(0)
    network = build_noise_predictor(UNetConfig(arch=arch), N_CLASSES, SIZE_PX)
    return Work(network, source.images, source.labels, batch_size, device)


def print_pairs(name: str, pairs: Pairs, bar: float) -> bool:
    """Prints one row of the table; returns whether the bar is met."""
    met = pairs.ratio >= bar
    print(
        f"| {name} | {pairs.plain_images_per_sec:.1f} | {pairs.ours_images_per_sec:.1f} |"
        f" **{pairs.ratio:.2f}** |"
        f" {pairs.ratio_min:.2f} .. {pairs.ratio_max:.2f} | {pairs.repeats} | at least {bar:g}:"
        f" {'met' if met else 'MISSED'} |",
        flush=True,
    )
    return met


def main() -> int:
    """Measures and prints; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="number of pairs")
    parser.add_argument("--steps", type=int, default=20, help="timed in each turn, on the CPU")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them")
    parser.add_argument("--batch-size", type=int, default=64, help="on the CPU")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    # accelerate and torch warn about CPUs and schedulers
    warnings.filterwarnings("ignore", module=r"(torch|accelerate)\..*")

    cpu = torch.device("cpu")
    source = data.load("shapes", "train", limit=2048)
    work = make_work("small", source, args.batch_size, cpu)
    precision = "bfloat16 autocast" if has_fast_bf16(cpu) else "float32 (no fast bfloat16)"
    print(
        f"Batches of {args.batch_size}, {SIZE_PX} px, {args.steps} steps a turn. `small` U-Net,"
        f" {n_parameters(work.network) / 1e6:.1f} M parameters, with class labels on both sides."
        f" diffusers {diffusers.__version__}, torch {torch.__version__}, {device_name(cpu)}{load_average()}."
        f" Ours: {precision}.\n",
        flush=True,
    )
    columns = "diffusers' example, images/s | ours, images/s | ratio | min .. max | pairs | bar |"
    header = f"{columns}\n|---|--:|--:|--:|--:|--:|---|"
    pairs = compare(work, args.steps, args.warm_up, args.repeats)
    print(f"| CPU | {header}")
    bars = {"cpu": print_pairs("`small` U-Net", pairs, CPU_BAR)}

    cuda = None
    if torch.cuda.is_available():
        device = torch.device("cuda")
        work = make_work("ddpm", source, CUDA_BATCH, device)
        said: list[str] = []
        listener = logging.Handler()
        listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("sdviz").addHandler(listener)
        cuda = compare(work, CUDA_STEPS, 10, args.repeats)
        print(f"\n| {device_name(device)}, batches of {CUDA_BATCH} | {header}")
        bars["cuda"] = print_pairs(CUDA_ROW, cuda, CUDA_BAR)
        if said:  # for example that compiling failed
            print(f"\nNot as the row says: {said[0]}")
    else:
        print(f"\n| CUDA, batches of {CUDA_BATCH} | {header}\n| {CUDA_ROW} | | | | | | not measured: no CUDA |")

    tree = {
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "device": device_name(cpu),
        "precision": precision,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "cpu": asdict(pairs),
        "cuda": None if cuda is None else asdict(cuda),
        "bars": bars,
    }
    write_json(args.json, tree)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
