"""Measures the grid in outliers of a U-Net on unshuffled pixels, with and without `phases`.

python bench/grid.py [--bundle checkpoints/cifar10] [--images cifar10:test] [--n 256] [--s 100 200] [--w 0 2]

Group normalisation hides the mean of each unshuffled channel from the network. The noise that stays there is a
pattern of period f over the whole picture, with power at single frequencies. The table has the amplitude at
those frequencies divided by that of the source images: 1 means no grid.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.bundle import Bundle  # noqa: E402
from sdviz.nn.phase_means import PhaseMeans, measure_phases  # noqa: E402


def grid_amplitude(images: np.ndarray, factor: int) -> np.ndarray:
    """Root mean square amplitude at the frequencies of period `factor`, without 0, by (row, column) frequency.

    Args:
        images: uint8 (N,H,W,3).
        factor: Of the pixel-unshuffle.

    Returns:
        float64 (factor, factor); [0,0], the mean, is 0.
    """
    x = images.astype(np.float64).mean(3)
    # the spectrum of the phases' means holds the picture's frequencies k H / factor
    n, h, w = x.shape
    means = x.reshape(n, h // factor, factor, w // factor, factor).mean((1, 3))
    amplitude = np.sqrt((np.abs(np.fft.fft2(means)) ** 2).mean(0)) / factor**2
    amplitude[0, 0] = 0
    return amplitude


def ratio(images: np.ndarray, originals: np.ndarray, factor: int) -> float:
    """The largest ratio of grid amplitudes over the frequencies."""
    ours, theirs = grid_amplitude(images, factor).ravel()[1:], grid_amplitude(originals, factor).ravel()[1:]
    return float((ours / theirs).max())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default=str(ROOT / "checkpoints" / "cifar10"))
    parser.add_argument("--images", default=None, help="source images; the bundle's own test set by default")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--s", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--w", type=float, nargs="+", default=[0.0, 2.0])
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    name, _, split = (args.images or f"{bundle.manifest.dataset}:test").rpartition(":")
    images = data.load(name, split, limit=args.n)
    factor, size = bundle.manifest.pixel_unshuffle, bundle.manifest.image_size
    if factor == 1:
        print("this bundle's U-Net does not unshuffle pixels: it makes no grid")
        return
    # a bundle without phases gets those of the images' training set
    statistics = bundle.manifest.phases or measure_phases(data.load(name, "train").images, factor)
    table = PhaseMeans(statistics, bundle.schedule.alphas_cumprod, (size // factor) ** 2)
    own = "with" if bundle.manifest.phases is not None else "without"
    print(f"{len(images)} images of {name}:{split}, bundle {Path(args.bundle).name} (made {own} `phases`).\n")
    print("| S | w | without `phases` | with |\n|--:|--:|--:|--:|")
    for s in args.s:
        for w in args.w:
            found = []
            for phases in (None, table):
                fresh = Bundle.load(args.bundle)
                fresh.noise_predictor.phases = phases
                made = fresh.generate(images.images, ids=images.ids, start_timestep=s, guidance_scale=w)
                found.append(ratio(made.outliers, images.images, factor))
            print(f"| {s} | {w:g} | {found[0]:.1f} | {found[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
