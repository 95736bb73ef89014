"""Fine-tuning without outliers: does it help on clusters that it never saw, and on a validation set?

    python bench/finetuning.py RUN [--pairs 3] [--rates 1e-2 1e-1] [--distillation 0 1] [--far miniplaces:val]
                               [--set KEY=VALUE ...]

RUN is a run with its stages `encoder` and `pseudo_labels`; `--set` changes its configuration here. First the
starting network, with raw and with unit features and several k. Then the detector of the configuration, trained
on ID images alone, each time without two of the clusters: AUROC of their images against other ID images, and of
`--far`, by the share of the trained weights. A fifth of the ID images is kept apart to measure on.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz import data  # noqa: E402
from sdviz.config.nodes import DetectorConfig  # noqa: E402
from sdviz.config.reading import load_config  # noqa: E402
from sdviz.detection.interpolation import interpolated  # noqa: E402
from sdviz.detection.metrics import auroc  # noqa: E402
from sdviz.detection.score import SDScore  # noqa: E402
from sdviz.detection.training import train_detector  # noqa: E402
from sdviz.evaluation.tuning import Split, left_out_splits  # noqa: E402
from sdviz.nn.detector import Detector  # noqa: E402
from sdviz.nn.encoder import Encoder  # noqa: E402
from sdviz.nn.fastest import processor  # noqa: E402
from sdviz.nn.feature_cache import fresh_features, kept_features  # noqa: E402
from sdviz.nn.loop import Execution  # noqa: E402
from sdviz.pipeline import Workspace  # noqa: E402
from sdviz.pipeline.backbone import load_backbone  # noqa: E402
from sdviz.pipeline.shared.labels import source_labels  # noqa: E402

HOLDOUT = 0.2


def found(split: Split, ours: np.ndarray, far: np.ndarray, k: int, normalize: bool = True) -> list[float]:
    """AUROC of left-out clusters and of the validation set, from the features of ID images and of that set."""
    assert split.outside is not None
    score = SDScore(k=k, alpha=0.0, normalize=normalize).fit(ours[split.fit])
    inside, *others = (score.score(x).distance for x in (ours[split.inside], ours[split.outside], far))
    return [auroc(inside, one) for one in others]


def trained(
    start: Encoder, images: np.ndarray, labels: np.ndarray, config: DetectorConfig, device: str
) -> Encoder:
    """The encoder after training on clusters of ID images, without an outlier."""
    torch.manual_seed(config.seed)
    n_clusters = int(labels.max()) + 1
    detector = Detector(copy.deepcopy(start), n_clusters, config.zero_heads, config.unit_features)
    none = images[:0], labels[:0]
    train_detector(detector, images, labels, *none, config, Execution(device))
    return detector.encoder


def line(title: str, values: Iterable[float]) -> None:
    """One row of a table; values are shares, printed in %."""
    print(f"| {title} |", " | ".join(f"{100 * value:.1f}" for value in values), "|", flush=True)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=3, help="of clusters to leave out in the second table")
    parser.add_argument("--rates", type=float, nargs="*", default=(1e-2, 1e-1))
    parser.add_argument("--distillation", type=float, nargs="*", default=(0.0, 1.0))
    parser.add_argument("--far", default="miniplaces:val")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    config = load_config(args.run / "config.yaml", args.set)
    assert config.detector is not None
    work = Workspace(args.run, config, lambda progress: None, lambda: False)
    start, labels, images = load_backbone(work), source_labels(work), work.sources.images
    far = data.load(*data.parse_source(args.far), limit=2000).images
    device, k, shares = config.device, config.evaluation.score.k, config.evaluation.interpolation
    print(f"{processor()}, {torch.get_num_threads()} threads; {len(images)} images of {config.data.id}.\n")

    ours, other = (kept_features(start, x, device) for x in (images, far))
    splits = left_out_splits(labels, HOLDOUT, 12, 0)
    print(f"| nothing trained | left out, {len(splits)} pairs | standard deviation | {args.far} |")
    print("|---|--:|--:|--:|")
    for normalize, near in product((True, False), (2, 10, 50)):
        values = np.array([found(split, ours, other, near, normalize) for split in splits])
        means, deviations = values.mean(0), values.std(0)
        title = f"{'unit' if normalize else 'raw'} features, k = {near}"
        line(title, (means[0], deviations[0], means[1]))

    print(f"\n| trained, k = {k}, {args.pairs} pairs |", " | ".join(f"a = {a:g}" for a in shares), "|")
    print("|---|" + "--:|" * len(shares), flush=True)
    for rate, weight in product(args.rates, args.distillation):
        optimizer = config.detector.optimizer.model_copy(update={"learning_rate": rate})
        one = config.detector.model_copy(update={"optimizer": optimizer, "distillation": weight})
        started, values = time.monotonic(), []
        for split in splits[: args.pairs]:
            after = trained(start, images[split.fit], split.labels, one, device)
            between = [interpolated(start, after, share) for share in shares]
            for encoder in between:
                encoder.freeze(one.frozen_blocks)
            features = [[fresh_features(encoder, x, device) for x in (images, far)] for encoder in between]
            values.append([found(split, ours, other, k) for ours, other in features])
        sec = (time.monotonic() - started) / args.pairs
        left_out, of_far = np.mean(values, 0).T
        for title, row in (("left out", left_out), (args.far, of_far)):
            line(f"{title}, rate {rate:g}, distillation {weight:g}", row)
        print(f"{rate:g}, {weight:g}: {sec:.0f} s a training", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
