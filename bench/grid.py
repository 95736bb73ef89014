"""Measures a grid of single pixels in outliers, whatever the U-Net.

python bench/grid.py [--bundle checkpoints/cifar10] [--images cifar10:test] [--n 256] [--s 100 200] [--w 0 2]
                     [--period 2] [--check]

A network that treats the pixels of each 2 x 2 square apart, as one on unshuffled pixels does, may leave a
pattern of period 2 over the whole picture, with power at single frequencies. The table has the amplitude at
those frequencies divided by that of the source images: 1 means no grid. With --check the exit code is 1 above
the bar.
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

BAR = 1.3


def grid_amplitude(images: np.ndarray, period: int) -> np.ndarray:
    """Root mean square amplitude at the frequencies of a period, without 0, by (row, column) frequency.

    Args:
        images: uint8 (N,H,W,3).
        period: In pixels; it divides both sides.

    Returns:
        float64 (period, period); [0,0], the mean, is 0.
    """
    x = images.astype(np.float64).mean(3)
    # the spectrum of the phases' means holds the picture's frequencies k H / period
    n, h, w = x.shape
    means = x.reshape(n, h // period, period, w // period, period).mean((1, 3))
    amplitude = np.sqrt((np.abs(np.fft.fft2(means)) ** 2).mean(0)) / period**2
    amplitude[0, 0] = 0
    return amplitude


def ratio(images: np.ndarray, originals: np.ndarray, period: int) -> float:
    """The largest ratio of grid amplitudes over the frequencies."""
    ours, theirs = (grid_amplitude(x, period).ravel()[1:] for x in (images, originals))
    return float((ours / theirs).max())


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default=str(ROOT / "checkpoints" / "cifar10"))
    parser.add_argument("--images", default=None, help="source images; the bundle's own test set by default")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--s", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--w", type=float, nargs="+", default=[0.0, 2.0])
    parser.add_argument("--period", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit code 1 if the bar is missed")
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    name, _, split = (args.images or f"{bundle.manifest.dataset}:test").rpartition(":")
    images = data.load(name, split, limit=args.n)
    print(f"{len(images)} images of {name}:{split}, bundle {Path(args.bundle).name}; bar {BAR}.\n")
    print(f"| S | w | amplitude at period {args.period} |\n|--:|--:|--:|")
    worst = 0.0
    for s in args.s:
        for w in args.w:
            made = bundle.generate(images.images, ids=images.ids, start_timestep=s, guidance_scale=w)
            worst = max(worst, found := ratio(made.outliers, images.images, args.period))
            print(f"| {s} | {w:g} | {found:.2f} |", flush=True)
    return 1 if args.check and worst > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
