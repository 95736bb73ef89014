"""What the methods that train minimise, against formulas in numpy; and their default settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from sdviz.baselines import BASELINES, Baseline, Images, Reference
from sdviz.baselines.finetuning import Loss, Trained
from sdviz.baselines.trained.fake_it import FakeIt
from sdviz.baselines.trained.mscl import MSCL
from sdviz.baselines.trained.multiclass_ad import MulticlassAD
from sdviz.baselines.trained.rot import Rot
from sdviz.config.nodes import ViewsConfig
from sdviz.nn.batches import encode
from sdviz.nn.encoder import Encoder
from sdviz.nn.views import random_views

pytestmark = pytest.mark.usefixtures("one_thread")

N = 24
ROWS = torch.tensor([5, 0, 17, 11, 23, 8])
# only mirrored: the networks see whole pictures
VIEWS = ViewsConfig(area=(1.0, 1.0), max_shift=0.0, jitter_share=0.0, grey_share=0.0)


def reference(labels: np.ndarray | None = None, fakes: np.ndarray | None = None) -> Reference:
    torch.manual_seed(3)
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
    return Reference(Images(images=images), labels, Encoder("small", 4), fakes, VIEWS, 0, "cpu")


@dataclass
class Handed:
    """What a method hands to the training that all share."""

    encoder: Encoder
    head: nn.Linear
    loss: Loss
    augment: bool


def handed(monkeypatch: pytest.MonkeyPatch, method: Baseline, on: Reference) -> Handed:
    """As it is before the first step: nothing is trained."""
    taken: list[Handed] = []

    def take(
        self: Trained, heads: dict[str, nn.Module], images: np.ndarray, batch_loss: Loss, *_: object
    ) -> None:
        head = heads.get("head", nn.Identity())
        taken.append(Handed(self._encoder.eval(), head, batch_loss, self.augment))  # type: ignore[arg-type]

    monkeypatch.setattr(Trained, "_train", take)
    method.fit(on)
    return taken[0]


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def value(of: Handed, images: np.ndarray, generator: int = 0) -> float:
    with torch.no_grad():
        return float(of.loss(ROWS, as_tensor(images), torch.Generator().manual_seed(generator)))


def logits(of: Handed, images: np.ndarray) -> np.ndarray:
    features = encode(of.encoder, images, "cpu").astype(np.float64)
    weight, bias = (one.detach().double().numpy() for one in (of.head.weight, of.head.bias))
    return features @ weight.T + bias


def cross_entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return float(-np.log(p[np.arange(len(truth)), truth]).mean())


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_multiclass_ad_is_cross_entropy_to_the_cluster_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(1).integers(0, 5, N)
    on = reference(labels)
    images = on.known.images[ROWS.numpy()]  # type: ignore[index]
    of = handed(monkeypatch, MulticlassAD(), on)
    with torch.no_grad():
        of.head.weight.mul_(500)  # an untrained network's features are small
    assert of.head.out_features == labels.max() + 1 and of.augment
    want = cross_entropy(logits(of, images), labels[ROWS.numpy()])
    assert abs(want - cross_entropy(logits(of, images), 0 * labels[ROWS.numpy()])) > 0.1
    assert value(of, images) == pytest.approx(want, rel=1e-4)


def test_multiclass_ad_learns_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(1).permutation(N) % 3
    on = reference(labels)
    images = on.known.images // 2  # type: ignore[operator]
    images[np.arange(N), :, :, labels] += 100  # a colour each
    on = replace(on, known=Images(images=images))
    heads: list[Handed] = []
    train: Callable[..., None] = Trained._train

    def watched(
        self: Trained, parts: dict[str, nn.Module], images: np.ndarray, loss: Loss, *rest: object
    ) -> None:
        heads.append(Handed(*copy.deepcopy((self._encoder, parts["head"])), loss, True))  # type: ignore[arg-type]
        train(self, parts, images, loss, *rest)
        heads.append(Handed(self._encoder, parts["head"], loss, True))  # type: ignore[arg-type]

    monkeypatch.setattr(Trained, "_train", watched)
    MulticlassAD(epochs=20, learning_rate=1e-2, batch_size=8).fit(on)
    before, after = ((logits(one, images).argmax(1) == labels).mean() for one in heads)
    assert before < 0.7 and after == 1.0


def test_mscl_contrasts_about_the_centre_at_its_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    on = reference()
    known = on.known.images
    assert known is not None
    images = known[ROWS.numpy()]
    of = handed(monkeypatch, MSCL(), on)
    # the method draws both views by the generator of the step, from images that are not views yet
    generator = torch.Generator().manual_seed(4)
    x = as_tensor(images)
    views = torch.cat([random_views(x, VIEWS, generator), random_views(x, VIEWS, generator)])
    with torch.no_grad():
        features = of.encoder(views).double().numpy()
    centre = unit(encode(of.encoder, known, "cpu").astype(np.float64)).mean(0)
    theta = unit(unit(features) - centre)
    exps = np.exp(theta @ theta.T / 0.25)
    pair = np.arange(12)[::-1].reshape(2, 6)[:, ::-1].ravel()  # 6..11, then 0..5
    want = np.mean([-np.log(exps[i, pair[i]] / (exps[i].sum() - exps[i, i])) for i in range(12)])
    assert not of.augment
    assert value(of, images, generator=4) == pytest.approx(want, rel=1e-4)


def test_fake_its_head_starts_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    on = reference(fakes=np.random.default_rng(2).integers(0, 256, (5, 8, 8, 3), np.uint8))
    of = handed(monkeypatch, FakeIt(), on)
    assert of.head.out_features == 2
    assert not of.head.weight.any() and not of.head.bias.any()
    # so that it is as unsure of every image
    assert value(of, on.known.images[ROWS.numpy()]) == pytest.approx(np.log(2), rel=1e-6)  # type: ignore[index]


def test_fake_it_tells_id_from_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    # one outlier, its own mirror image as those of the batch are: which one is drawn, and how, is the same
    half = np.random.default_rng(2).integers(0, 256, (7, 8, 4, 3), np.uint8)
    mirrored = np.concatenate([half, half[:, :, ::-1]], axis=2)
    fake, images = mirrored[:1], mirrored[1:]
    of = handed(monkeypatch, FakeIt(), reference(fakes=fake))
    with torch.no_grad():
        nn.init.normal_(of.head.weight, std=500, generator=torch.Generator().manual_seed(0))
    seen = np.concatenate([images, np.repeat(fake, 6, axis=0)])
    truth = np.repeat([0, 1], 6)
    want = cross_entropy(logits(of, seen), truth)
    assert abs(want - cross_entropy(logits(of, seen), 1 - truth)) > 0.1
    assert value(of, images) == pytest.approx(want, rel=1e-4)


def test_rot_names_the_quarter_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    on = reference()
    images = on.known.images[ROWS.numpy()]  # type: ignore[index]
    of = handed(monkeypatch, Rot(), on)
    with torch.no_grad():
        of.head.weight.mul_(500)
    assert of.head.out_features == 4 and of.augment
    turned = [np.ascontiguousarray(np.rot90(images, turn, (1, 2))) for turn in range(4)]
    want = np.mean([cross_entropy(logits(of, one), np.full(6, turn)) for turn, one in enumerate(turned)])
    wrong = np.mean([cross_entropy(logits(of, one), np.full(6, -turn % 4)) for turn, one in enumerate(turned)])
    assert abs(want - wrong) > 0.1
    assert value(of, images) == pytest.approx(want, rel=1e-4)


DEFAULTS: dict[str, dict[str, object]] = {
    "dn2": {"k": 2, "normalize": False},
    "knn": {"k": 50},
    "multiclass_ad": {"k": 2, "epochs": 5, "batch_size": 128},
    "mscl": {"k": 2, "temperature": 0.25, "epochs": 5, "batch_size": 64, "frozen_blocks": 1},
    "fake_it": {"k": 2, "epochs": 5, "batch_size": 64, "generator_steps": 300},
    "rot": {"epochs": 5, "batch_size": 32},
}
OPTIMIZERS = {
    "multiclass_ad": ("adamw", 1e-3, 1e-4, 20),
    "mscl": ("sgd", 1e-4, 5e-5, 0),
    "fake_it": ("sgd", 1e-2, 5e-5, 0),
    "rot": ("adamw", 1e-3, 1e-4, 20),
}


@pytest.mark.parametrize("key", BASELINES)
def test_defaults_are_those_of_the_docstrings(key: str) -> None:
    method = BASELINES[key]()
    optimizer = getattr(method, "optimizer", None)
    assert method.settings.model_dump(exclude={"learning_rate"}) == DEFAULTS.get(key, {})
    if optimizer is not None:
        chosen = (optimizer.name, optimizer.learning_rate, optimizer.weight_decay, optimizer.warmup_steps)
        assert chosen == OPTIMIZERS[key] and optimizer.momentum == 0.9
    # where the source fixes it, the docstring says so
    text = method.__doc__ or ""
    if "k" in DEFAULTS.get(key, {}):
        assert f"k = {DEFAULTS[key]['k']}" in text
    if key == "mscl":
        assert "temperature 0.25" in text


def test_multiclass_ad_counts_two_neighbours_unasked() -> None:
    on = reference(np.arange(N) % 2)
    method = MulticlassAD(epochs=1).fit(on)
    queries = np.random.default_rng(9).integers(0, 256, (4, 8, 8, 3), np.uint8)
    assert on.known.images is not None
    known, asked = (
        encode(method._encoder, one, "cpu").astype(np.float64) for one in (on.known.images, queries)
    )
    squares = ((asked[:, None] - known) ** 2).sum(2)
    want = np.sort(squares, axis=1)[:, :2].sum(1)
    assert np.allclose(method.score(Images(images=queries)), want, rtol=1e-4)
