from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from sdviz import data
from sdviz.baselines import Images
from sdviz.baselines.trained.fake_it import FakeIt
from sdviz.config.nodes import ViewsConfig
from sdviz.nn.views import random_views
from tests.baselines import (
    ROWS,
    as_tensor,
    cross_entropy,
    logits_of,
    loss_of,
    noise_reference,
    shapes_reference,
    training_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_fake_it_learns_what_its_outliers_are_like() -> None:
    reference = shapes_reference(192)
    method = FakeIt(epochs=12).fit(reference)
    test = data.load("shapes", "test", limit=60).images
    noise = np.random.default_rng(2).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    scores = [method.score(Images(images=one)) for one in (test, noise)]
    assert roc_auc_score([0] * 60 + [1] * 60, np.concatenate(scores)) > 0.9


def test_fake_its_head_starts_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = noise_reference(outliers=np.random.default_rng(2).integers(0, 256, (5, 8, 8, 3), np.uint8))
    training = training_of(monkeypatch, FakeIt(), reference)
    assert training.head.out_features == 2
    assert not training.head.weight.any() and not training.head.bias.any()
    # so that it is as unsure of every image
    assert loss_of(training, reference.known.images[ROWS.numpy()]) == pytest.approx(np.log(2), rel=1e-6)  # type: ignore[index]


def test_fake_it_tells_id_from_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    # one outlier, its own mirror image as those of the batch are: which one is drawn, and how, is the same
    half = np.random.default_rng(2).integers(0, 256, (7, 8, 4, 3), np.uint8)
    mirrored = np.concatenate([half, half[:, :, ::-1]], axis=2)
    fake, images = mirrored[:1], mirrored[1:]
    training = training_of(monkeypatch, FakeIt(), noise_reference(outliers=fake))
    with torch.no_grad():
        nn.init.normal_(training.head.weight, std=500, generator=torch.Generator().manual_seed(0))
    seen = np.concatenate([images, np.repeat(fake, 6, axis=0)])
    truth = np.repeat([0, 1], 6)
    want = cross_entropy(logits_of(training, seen), truth)
    assert abs(want - cross_entropy(logits_of(training, seen), 1 - truth)) > 0.1
    assert loss_of(training, images) == pytest.approx(want, rel=1e-4)


def test_both_sides_are_mirrored_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor, config: ViewsConfig, generator: torch.Generator) -> torch.Tensor:
        seen.append(random_views(x, config, generator))
        return seen[-1]

    monkeypatch.setattr("sdviz.baselines.trained.fake_it.random_views", watched)
    rng = np.random.default_rng(2)
    one, fake = (rng.integers(0, 256, (1, 8, 8, 3), np.uint8) for _ in range(2))
    training = training_of(monkeypatch, FakeIt(), noise_reference(outliers=fake))
    for seed in range(8):
        loss_of(training, np.repeat(one, 6, axis=0), seed)
    shown = torch.stack(seen)  # (8, 12, 3, 8, 8)
    for side, image in ((shown[:, :6], one), (shown[:, 6:], fake)):
        plain = as_tensor(image)[0]
        mirrored = [(side - x).abs().amax((2, 3, 4)) < 1e-4 for x in (plain, plain.flip(-1))]
        assert (mirrored[0] ^ mirrored[1]).all()
        assert 8 < int(mirrored[1].sum()) < 40
