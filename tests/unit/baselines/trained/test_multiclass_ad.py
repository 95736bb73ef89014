from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sdviz.baselines import Images
from sdviz.baselines.finetuning import Loss, Trained
from sdviz.baselines.trained.multiclass_ad import MulticlassAD
from sdviz.nn.batches import encode
from tests.baselines import (
    N_IMAGES,
    ROWS,
    Training,
    cross_entropy,
    logits_of,
    loss_of,
    noise_reference,
    training_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_multiclass_ad_is_cross_entropy_to_the_cluster_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(1).integers(0, 5, N_IMAGES)
    reference = noise_reference(labels)
    images = reference.known.images[ROWS.numpy()]  # type: ignore[index]
    training = training_of(monkeypatch, MulticlassAD(), reference)
    with torch.no_grad():
        training.head.weight.mul_(500)  # an untrained network's features are small
    assert training.head.out_features == labels.max() + 1 and training.augment
    want = cross_entropy(logits_of(training, images), labels[ROWS.numpy()])
    assert abs(want - cross_entropy(logits_of(training, images), 0 * labels[ROWS.numpy()])) > 0.1
    assert loss_of(training, images) == pytest.approx(want, rel=1e-4)


def test_multiclass_ad_learns_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(1).permutation(N_IMAGES) % 3
    reference = noise_reference(labels)
    images = reference.known.images // 2  # type: ignore[operator]
    images[np.arange(N_IMAGES), :, :, labels] += 100  # a colour each
    reference = replace(reference, known=Images(images=images))
    heads: list[Training] = []
    train: Callable[..., None] = Trained._train

    def watched(
        self: Trained, parts: dict[str, nn.Module], images: np.ndarray, loss: Loss, *rest: object
    ) -> None:
        heads.append(Training(*copy.deepcopy((self._encoder, parts["head"])), loss, True))  # type: ignore[arg-type]
        train(self, parts, images, loss, *rest)
        heads.append(Training(self._encoder, parts["head"], loss, True))  # type: ignore[arg-type]

    monkeypatch.setattr(Trained, "_train", watched)
    MulticlassAD(epochs=20, learning_rate=1e-2, batch_size=8).fit(reference)
    before, after = ((logits_of(one, images).argmax(1) == labels).mean() for one in heads)
    assert before < 0.7 and after == 1.0


def test_multiclass_ad_counts_two_neighbours_unasked() -> None:
    reference = noise_reference(np.arange(N_IMAGES) % 2)
    method = MulticlassAD(epochs=1).fit(reference)
    queries = np.random.default_rng(9).integers(0, 256, (4, 8, 8, 3), np.uint8)
    assert reference.known.images is not None
    known, asked = (
        encode(method._encoder, one, "cpu").astype(np.float64) for one in (reference.known.images, queries)
    )
    squares = ((asked[:, None] - known) ** 2).sum(2)
    want = np.sort(squares, axis=1)[:, :2].sum(1)
    assert np.allclose(method.score(Images(images=queries)), want, rtol=1e-4)
