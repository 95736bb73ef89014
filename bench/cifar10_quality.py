"""Measures whether SD outliers of CIFAR-10 change the object, by a supervised judge.

python bench/cifar10_quality.py [--bundle checkpoints/cifar10] [--n 1000] [--out docs] [--check]

The judge is a ResNet of 32 px trained here on all 50,000 training images and their classes, at least 85 %
right on test images; an interrupted training continues. Writes quality-cifar10.md, .json and .svg;
`judging.py` says how.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import torch
from judging import CACHE, Study, run
from safetensors.torch import load_file, save_file
from torch import nn

from sdviz import data
from sdviz.config.nodes import OptimizerConfig, PretrainingConfig, ViewsConfig
from sdviz.nn.batches import encode, predict
from sdviz.nn.classifier import ScanClassifier
from sdviz.nn.encoder import Encoder
from sdviz.nn.loop import Execution, LoopReport
from sdviz.nn.supervised import train_linear, train_supervised

WIDTH = 48
JUDGE = PretrainingConfig(
    data="cifar10",
    total_steps=3500,
    batch_size=256,
    optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.05, warmup_steps=200),
)
VIEWS = ViewsConfig(area=(0.4, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0, grey_share=0.0)
JUDGE_SEED = 77


def judge() -> nn.Module:
    """Trains the judge, or reads it; a quarter of an hour to an hour on a CPU."""
    settings = f"{WIDTH} {JUDGE.model_dump_json()} {VIEWS.model_dump_json()} {JUDGE_SEED}"
    file = CACHE / f"cifar10-judge-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.safetensors"
    torch.manual_seed(JUDGE_SEED)
    encoder = Encoder("small", WIDTH)
    if file.is_file():
        network = ScanClassifier(encoder, 10)
        network.load_state_dict(load_file(file))
        return network.eval()
    train = data.load("cifar10", "train")
    CACHE.mkdir(parents=True, exist_ok=True)
    execution = Execution("auto", file.with_suffix(".pt"), report)
    train_supervised(encoder, train.images, train.labels, VIEWS, JUDGE, execution, JUDGE_SEED)
    rows = data.permutation(len(train), 0)[:10_000]
    found = encode(encoder, train.images[rows])
    network = train_linear(encoder, found, train.labels[rows], 10)
    save_file(network.state_dict(), file)
    file.with_suffix(".pt").unlink()
    return network


def report(r: LoopReport) -> None:
    """Prints how far the judge is."""
    print(f"judge {r.step}/{r.total_steps}, loss {r.loss:.3f}, {r.images_per_sec:.0f} images/s", flush=True)


if __name__ == "__main__":
    network = judge()

    def classes(images: np.ndarray) -> np.ndarray:
        """The class of each image, int64 (N,)."""
        return predict(network, images)[0]

    study = Study(
        name="cifar10",
        title="What the outliers of the CIFAR-10 bundle keep and change",
        judge=classes,
        min_accuracy=0.85,
        masks=None,
        distance="over the whole picture",
        bars={"shift": 0.50, "control_shift": 0.12},
    )
    sys.exit(run(study, __doc__ or "", "quality-cifar10"))
