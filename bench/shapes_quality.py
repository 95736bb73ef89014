"""Measures whether SD outliers change the object and keep the background, on shapes with known masks.

python bench/shapes_quality.py [--bundle checkpoints/shapes] [--n 1000] [--out docs] [--check]

The judge is a classifier trained here, at least 98 % right on the test split. The background is compared
outside the object's mask, widened by 2 px. Writes quality.md, .json and .svg; `judging.py` says how.
"""

from __future__ import annotations

import hashlib
import sys

from judging import CACHE, Study, run
from safetensors.torch import load_file, save_file
from torch import nn

from sdviz import data
from sdviz.config.nodes import ClustererConfig
from sdviz.nn.batches import predict
from sdviz.nn.classifier import SmallClassifier
from sdviz.nn.loop import Execution
from sdviz.nn.supervised import train_classifier

JUDGE = ClustererConfig(width=24, total_steps=900, max_shift_px=2, colour_jitter=0.3)
JUDGE_SEED = 77


def judge() -> nn.Module:
    """Trains the judge, or reads it."""
    key = hashlib.sha256(f"{JUDGE.model_dump_json()} {JUDGE_SEED} 1".encode()).hexdigest()[:12]
    file = CACHE / f"shapes-judge-{key}.safetensors"
    if file.is_file():
        network = SmallClassifier(10, JUDGE.width)
        network.load_state_dict(load_file(file))
        return network.eval()
    train = data.load("shapes", "train")
    print("Training the judge ...", flush=True)
    trained = train_classifier(train.images, train.labels, 10, JUDGE, Execution(), JUDGE_SEED)
    assert trained is not None
    CACHE.mkdir(parents=True, exist_ok=True)
    save_file(trained.state_dict(), file)
    return trained


if __name__ == "__main__":
    network = judge()
    study = Study(
        name="shapes",
        title="What the outliers of the shipped bundle keep and change",
        judge=lambda images: predict(network, images)[0],
        min_accuracy=0.98,
        masks=data.masks,
        distance="outside the object's mask widened by 2 px",
        bars={"shift": 0.80, "control_shift": 0.06, "psnr_db": 25.0},
    )
    sys.exit(run(study, __doc__ or "", "quality"))
