from __future__ import annotations

import numpy as np
import pytest
import torch

from sdviz import data
from sdviz.baselines import Images
from sdviz.baselines.trained.rot import Rot, quarter_turns
from sdviz.nn.batches import encode
from tests.baselines import (
    ROWS,
    cross_entropy,
    logits_of,
    loss_of,
    noise_reference,
    shapes_reference,
    training_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_quarter_turns_are_numpys() -> None:
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8))
    turned, turns = quarter_turns(torch.tensor(x))
    for row, turn in enumerate(turns.tolist()):
        assert np.array_equal(turned[row].numpy(), np.rot90(x[row % 3], turn, (1, 2)))


def test_rots_score_is_the_mean_cross_entropy_over_turns() -> None:
    method = Rot(epochs=1).fit(shapes_reference())
    test = data.load("shapes", "test", limit=5).images
    losses = []
    for turn in range(4):
        turned = np.ascontiguousarray(np.rot90(test, turn, (1, 2)))
        logits = encode(torch.nn.Sequential(method._encoder, method._head), turned, "cpu").astype(float)
        p = np.exp(logits - logits.max(1, keepdims=True))
        losses.append(-np.log(p[:, turn] / p.sum(1)))
    assert np.allclose(method.score(Images(images=test)), np.mean(losses, axis=0), rtol=1e-4, atol=1e-5)


def test_rot_names_the_quarter_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = noise_reference()
    images = reference.known.images[ROWS.numpy()]  # type: ignore[index]
    training = training_of(monkeypatch, Rot(), reference)
    with torch.no_grad():
        training.head.weight.mul_(500)
    assert training.head.out_features == 4 and training.augment
    turned = [np.ascontiguousarray(np.rot90(images, turn, (1, 2))) for turn in range(4)]
    logits = [logits_of(training, one) for one in turned]
    want = np.mean([cross_entropy(one, np.full(6, turn)) for turn, one in enumerate(logits)])
    wrong = np.mean([cross_entropy(one, np.full(6, -turn % 4)) for turn, one in enumerate(logits)])
    assert abs(want - wrong) > 0.1
    assert loss_of(training, images) == pytest.approx(want, rel=1e-4)
