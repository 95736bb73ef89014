"""Compares ImageNet networks and input sizes as they come through pip, without training, on validation sets.

python bench/encoders.py [--data cifar10] [--far miniplaces:val] [--n 6000] [--networks lite0:96 lite2:128]
                         [--near cifar100:test ...]

The score is Eq. 6 without outliers: unit features, the squared distances to the 10 nearest of n ID images. The
network is chosen by two figures that need no OOD image of a test: clusters of ID that are left out in turn (all
networks are asked for the same ones), and `--far`. Sets of `--near` are only printed beside them.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.config.nodes import EncoderConfig  # noqa: E402
from sdviz.detection.metrics import auroc  # noqa: E402
from sdviz.detection.score import SDScore  # noqa: E402
from sdviz.nn.encoder import build_encoder  # noqa: E402
from sdviz.nn.fastest import processor  # noqa: E402
from sdviz.nn.feature_cache import kept_features  # noqa: E402
from sdviz.scan.clustering import kmeans_labels  # noqa: E402

N_CLUSTERS = 10
MAX_QUERIES = 2000
NETWORKS = ("lite0:96", "lite0:128", "lite2:96", "lite2:128", "lite2:160")


def distances(known: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Distances of Eq. 6 to a bank without outliers, float64 (M,)."""
    return SDScore(k=10, alpha=0.0).fit(known).score(queries).distance


def left_out(known: np.ndarray, queries: np.ndarray, clusters: tuple[np.ndarray, np.ndarray]) -> list[float]:
    """AUROC of images of two clusters against those of all others, for every second pair of clusters."""
    of_known, of_queries = clusters
    found = []
    for pair in list(combinations(range(N_CLUSTERS), 2))[::2]:
        scores = distances(known[~np.isin(of_known, pair)], queries)
        is_out = np.isin(of_queries, pair)
        found.append(auroc(scores[~is_out], scores[is_out]))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--far", default="miniplaces:val")
    parser.add_argument("--near", nargs="*", default=[])
    parser.add_argument("--n", type=int, default=6000, help="ID images to compare with")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="NAME:SIZE, as lite2:128")
    args = parser.parse_args()
    images = data.load(args.data, "train", limit=args.n + MAX_QUERIES).images
    others = {
        name: data.load(*data.parse_source(name), limit=MAX_QUERIES).images for name in (args.far, *args.near)
    }
    test = data.load(args.data, "test", limit=MAX_QUERIES).images
    columns: dict[str, list[np.ndarray]] = {}
    rates: dict[str, str] = {}
    for one in args.networks:
        name, size = one.split(":")
        config = EncoderConfig(arch=f"timm:tf_efficientnet_{name}", weights="pip", input_px=int(size))
        encoder = build_encoder(config).eval()
        started = time.monotonic()
        columns[one] = [kept_features(encoder, x) for x in (images, test, *others.values())]
        sec = time.monotonic() - started
        n = sum(map(len, columns[one]))
        # a rate of more than a thousand means that the features were on the disk
        rates[one] = f"{n / sec:.0f}" if n / sec < 1000 else ""
        print(f"{one}: {n} images in {sec:.0f} s", file=sys.stderr, flush=True)
    # the same clusters for all: those of all networks' features together
    joined = np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x, *_ in columns.values()], 1)
    clusters = kmeans_labels(joined, N_CLUSTERS)
    print(f"{processor()}, {torch.get_num_threads()} threads; {args.n} references of {args.data}.\n")
    print("| network | images/s | left-out clusters |", " | ".join(others), "|")
    print("|---|--:|--:|" + "--:|" * len(others))
    for one, (x, queries, *rest) in columns.items():
        bank, held_out = x[: args.n], x[args.n :]
        found = left_out(bank, held_out, (clusters[: args.n], clusters[args.n :]))
        usual = distances(bank, queries)
        row = [100 * float(np.mean(found)), *(100 * auroc(usual, distances(bank, ood)) for ood in rest)]
        print(f"| {one} | {rates[one]} |", " | ".join(f"{value:.1f}" for value in row), "|", flush=True)


if __name__ == "__main__":
    main()
