"""Helpers for tests of the methods: what they are fitted on, and what those that train minimise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from sdviz import data
from sdviz.baselines import BASELINES, Baseline, Images, Reference
from sdviz.baselines.finetuning import Loss, Trained
from sdviz.config.nodes import ViewsConfig
from sdviz.nn.batches import encode
from sdviz.nn.encoder import Encoder

RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(120, 6)).astype(np.float32)
QUERIES = RNG.normal(0.5, 1.2, size=(15, 6)).astype(np.float32)
LOGITS = RNG.normal(0, 5, size=(15, 4)).astype(np.float32)

N_IMAGES = 24
# the rows of a batch
ROWS = torch.tensor([5, 0, 17, 11, 23, 8])
# only mirrored: the networks see whole pictures
VIEWS = ViewsConfig(area=(1.0, 1.0), max_shift=0.0, jitter_share=0.0, grey_share=0.0)


def fit(
    key: str,
    known: np.ndarray = KNOWN,
    logits: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    **settings: object,
) -> Baseline:
    return BASELINES[key](**settings).fit(Reference(Images(features=known, logits=logits, ids=ids)))


def shapes_reference(n: int = 96, seed: int = 0) -> Reference:
    """Drawn images of 32 px with their classes, and noise as outliers."""
    some = data.load("shapes", "train", limit=n)
    torch.manual_seed(0)
    encoder = Encoder("small", 4)
    noise = np.random.default_rng(1).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    views = ViewsConfig(area=(0.8, 1.0))
    known = Images(images=some.images, ids=some.ids)
    return Reference(known, some.labels, encoder, noise, views, seed=seed, device="cpu")


def noise_reference(labels: np.ndarray | None = None, outliers: np.ndarray | None = None) -> Reference:
    """24 images of noise of 8 px."""
    torch.manual_seed(3)
    images = np.random.default_rng(0).integers(0, 256, (N_IMAGES, 8, 8, 3), np.uint8)
    known = Images(images=images)
    return Reference(known, labels, Encoder("small", 4), outliers, VIEWS, device="cpu")


@dataclass
class Training:
    """What a method gives to the shared training: its networks, its loss, whether images are augmented."""

    encoder: Encoder
    head: nn.Linear
    loss: Loss
    augment: bool


def training_of(monkeypatch: pytest.MonkeyPatch, method: Baseline, reference: Reference) -> Training:
    """The training of a method before its first step: nothing is trained."""
    taken: list[Training] = []

    def take(
        self: Trained, heads: dict[str, nn.Module], images: np.ndarray, batch_loss: Loss, *_: object
    ) -> None:
        head = heads.get("head", nn.Identity())
        taken.append(Training(self._encoder.eval(), head, batch_loss, self.augment))  # type: ignore[arg-type]

    monkeypatch.setattr(Trained, "_train", take)
    method.fit(reference)
    return taken[0]


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_of(training: Training, images: np.ndarray, seed: int = 0) -> float:
    """The loss of the images of a batch, those of `ROWS`."""
    with torch.no_grad():
        return float(training.loss(ROWS, as_tensor(images), torch.Generator().manual_seed(seed)))


def logits_of(training: Training, images: np.ndarray) -> np.ndarray:
    features = encode(training.encoder, images, "cpu").astype(np.float64)
    weight, bias = (one.detach().double().numpy() for one in (training.head.weight, training.head.bias))
    return features @ weight.T + bias


def cross_entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return float(-np.log(p[np.arange(len(truth)), truth]).mean())


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64."""
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
