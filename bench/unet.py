"""Measures a U-Net on images that it was not trained on: Eq. 1 by noise level, and how far its pictures are.

python bench/unet.py PATH [PATH ...] [--data cifar10] [--n 1000] [--fd 1000] [--steps 50]

PATH is a bundle, or a run with its stages `diffusion` and `clusterer`. The mean squared error of the noise,
with the cluster and with the null token, over test images with t spread evenly over each range. FD is the
Frechet distance of pictures made from pure noise to test images, on features of lite0 at 96 px; beside it
that of as many training images. Few images make both too large: compare at one number only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.bundle import Bundle  # noqa: E402
from sdviz.config.nodes import NetworkConfig  # noqa: E402
from sdviz.config.reading import load_config  # noqa: E402
from sdviz.diffusion.from_noise import sample_from_noise  # noqa: E402
from sdviz.diffusion.schedule import NoiseSchedule  # noqa: E402
from sdviz.evaluation import frechet_distance  # noqa: E402
from sdviz.nn.batches import predict, slices  # noqa: E402
from sdviz.nn.encoder import build_encoder  # noqa: E402
from sdviz.nn.fastest import processor  # noqa: E402
from sdviz.nn.feature_cache import kept_features  # noqa: E402
from sdviz.nn.pixels import to_images, to_tensor  # noqa: E402
from sdviz.nn.unet import NoisePredictor, n_parameters  # noqa: E402
from sdviz.pipeline import Workspace  # noqa: E402
from sdviz.pipeline.clusterer import load_clusterer  # noqa: E402
from sdviz.pipeline.diffusion import load_noise_predictor  # noqa: E402

RANGES = ((0, 50), (50, 100), (100, 200), (200, 400), (400, 700), (700, 1000))
JUDGE = NetworkConfig(arch="timm:tf_efficientnet_lite0", weights="pip", input_px=96)


def opened(path: Path, images: np.ndarray) -> tuple[NoisePredictor, NoiseSchedule, np.ndarray, int]:
    """The U-Net of a bundle or run, its schedule, the clusters of images, and the first t it does not know."""
    if (path / "bundle.json").is_file():
        bundle = Bundle.load(path, device="cpu")
        assert bundle.clusterer is not None
        clusters = predict(bundle.clusterer, images)[0]
        return bundle.noise_predictor, bundle.schedule, clusters, bundle.manifest.max_train_timestep
    work = Workspace(path, load_config(path / "config.yaml", []), lambda progress: None, lambda: False)
    clusters = predict(load_clusterer(work), images)[0]
    last = work.config.diffusion.max_train_timestep or len(work.schedule)
    return load_noise_predictor(work), work.schedule, clusters, last


@torch.no_grad()
def eq1(
    model: NoisePredictor,
    schedule: NoiseSchedule,
    images: np.ndarray,
    labels: np.ndarray,
    first: int,
    last: int,
) -> float:
    """The mean of Eq. 1 over images, with t from `first` to `last - 1`."""
    x_0 = to_tensor(images)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    t = first + torch.arange(len(images)) * (last - first) // len(images)
    x_t, y = schedule.add_noise(x_0, noise, t + 1), torch.tensor(labels)
    total = 0.0
    for rows in slices(len(images), 64):
        eps = model(x_t[rows], t[rows], y[rows])
        total += float((eps.float() - noise[rows]).square().sum())
    return total / noise.numel()


@torch.no_grad()
def from_noise(model: NoisePredictor, schedule: NoiseSchedule, n: int, size: int, steps: int) -> np.ndarray:
    """Pictures from pure noise, as many of each cluster, without guidance: uint8 (n,size,size,3)."""
    made = []
    for rows in slices(n, 100):
        ids = [f"fd {i}" for i in range(n)[rows]]
        labels = torch.arange(n)[rows] % model.null_label
        x = sample_from_noise(
            model, schedule, labels, ids, size, model.null_label, num_inference_steps=steps, guidance_scale=0.0
        )
        made.append(to_images(x))
    return np.concatenate(made)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--n", type=int, default=1000, help="test images for each range of t")
    parser.add_argument("--fd", type=int, default=1000, help="pictures from noise; 0 for none")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM, for those")
    args = parser.parse_args()
    test = data.load(args.data, "test", limit=max(args.n, args.fd)).images
    judge = build_encoder(JUDGE).eval()
    print(f"{processor()}, {torch.get_num_threads()} threads; {args.n} test images of {args.data}.\n")
    print("| U-Net | condition |", " | ".join(f"t {a}..{b - 1}" for a, b in RANGES), "| FD |")
    print("|---|---|" + "--:|" * (len(RANGES) + 1), flush=True)
    if args.fd:
        train = data.load(args.data, "train", limit=args.fd).images
        real = kept_features(judge, test[: args.fd])
        known = frechet_distance(kept_features(judge, train), real)
        print("| training images | |", " | |" * len(RANGES), f" {known:.2f} |")
    for path in args.paths:
        model, schedule, clusters, last = opened(path, test[: args.n])
        model = model.float().eval()
        fd = ""
        if args.fd and last == len(schedule):
            made = from_noise(model, schedule, args.fd, test.shape[1], args.steps)
            fd = f"{frechet_distance(kept_features(judge, made), real):.2f}"
        title = f"{path.name}, {n_parameters(model) / 1e6:.1f} M"
        for condition in ("cluster", "none"):
            labels = clusters if condition == "cluster" else np.full_like(clusters, model.null_label)
            found = [
                f"{eq1(model, schedule, test[: args.n], labels, a, b):.4f}" if b <= last else ""
                for a, b in RANGES
            ]
            print(f"| {title} | {condition} |", " | ".join(found), f"| {fd} |", flush=True)
            title = fd = ""


if __name__ == "__main__":
    main()
