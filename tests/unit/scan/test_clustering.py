from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.nn import functional as F

from sdviz.config.nodes import OptimizerConfig, PretrainingConfig, ScanConfig, SelfLabelConfig, ViewsConfig
from sdviz.detection.knn import nearest_others, unit_length
from sdviz.nn import device
from sdviz.nn.batches import encode, predict
from sdviz.nn.classifier import Projection, ScanClassifier, build_classifier
from sdviz.nn.encoder import Encoder
from sdviz.nn.loop import Execution, LoopReport, TrainingStateError
from sdviz.nn.randomness import step_generator
from sdviz.nn.supervised import train_supervised
from sdviz.nn.views import random_views
from sdviz.scan.clustering import kmeans_labels, scan_losses, train_scan, train_self_labels
from sdviz.scan.metrics import agreement
from tests.stopping import stop_before

pytestmark = pytest.mark.usefixtures("one_thread")

Pictures = Callable[..., tuple[np.ndarray, np.ndarray]]
SCAN = ScanConfig(
    total_steps=20,
    batch_size=24,
    heads=3,
    head_steps=100,
    neighbours=4,
    optimizer=OptimizerConfig(learning_rate=1e-3),
)
SELF = SelfLabelConfig(
    total_steps=30, batch_size=24, threshold=0.5, optimizer=OptimizerConfig(learning_rate=3e-3)
)
VIEWS = ViewsConfig(area=(0.6, 1.0), brightness=0.1, contrast=0.1, saturation=0.1, hue=0.0, grey_share=0.0)


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder("small", 4).eval()


@pytest.fixture
def knowing(coloured: Pictures) -> Callable[[], Encoder]:
    """Makes an encoder that tells colours apart, in place of one trained by SimCLR."""
    network = encoder()
    config = PretrainingConfig(
        data="elsewhere", total_steps=40, batch_size=16, optimizer=OptimizerConfig(learning_rate=1e-2)
    )
    train_supervised(network, *coloured(seed=5), VIEWS, config, Execution("cpu"))
    return lambda: copy.deepcopy(network)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- the SCAN loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("c", [2, 7])
def test_the_scan_loss_in_closed_form(c: int, weight: float) -> None:
    # nothing known: agreement by chance, 1/C, and all of the entropy
    uniform = torch.zeros(9, c)
    loss = float(scan_losses(uniform, uniform, weight))
    assert loss == pytest.approx((1 - weight) * math.log(c), abs=1e-4)
    # sure, right and evenly spread: the best there is
    sure = 50 * torch.eye(c).repeat(3, 1)
    assert float(scan_losses(sure, sure, weight)) == pytest.approx(-weight * math.log(c), abs=1e-4)
    # sure, and all in one cluster: consistent, without entropy
    one = torch.zeros(9, c)
    one[:, 0] = 50
    assert float(scan_losses(one, one, weight)) == pytest.approx(0, abs=1e-4)
    # sure and in other clusters than the neighbours: as bad as it gets, and finite
    assert float(scan_losses(sure, sure.roll(1, 0), 0.0)) == pytest.approx(-math.log(1e-8), rel=1e-4)


def test_the_scan_loss_is_eq_2_for_each_head() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 3, 11, 4))
    losses = scan_losses(torch.tensor(a), torch.tensor(b), 3.0)
    assert losses.shape == (3,)
    for head in range(3):
        p, q = (np.exp(z[head]) / np.exp(z[head]).sum(1, keepdims=True) for z in (a, b))
        consistency = -np.mean([np.log(p[i] @ q[i]) for i in range(11)])
        mean = p.mean(0)
        expected = consistency + 3 * np.sum(mean * np.log(mean))
        assert float(losses[head]) == pytest.approx(expected, rel=1e-5)


# --- training ---------------------------------------------------------------------------------------


def near(images: np.ndarray, k: int = 4) -> np.ndarray:
    """Neighbours by mean colour: right ones, whatever the encoder says."""
    return nearest_others(unit_length(images.mean(axis=(1, 2)) - 128), k, device="cpu")


@pytest.mark.parametrize("with_projection", [False, True])
def test_scan_and_self_labels_find_the_clusters(
    coloured: Pictures, knowing: Callable[[], Encoder], with_projection: bool
) -> None:
    images, labels = coloured()
    start, reports = knowing(), list[LoopReport]()
    projection = Projection(16, 8, 6) if with_projection else None
    before = weights(start), weights(projection) if projection else {}
    trained = train_scan(
        start,
        images,
        near(images),
        3,
        VIEWS,
        SCAN,
        Execution("cpu", on_report=reports.append),
        projection=projection,
    )
    assert trained is not None
    model, loss = trained
    assert not model.training
    assert [r.step for r in reports] == [20]
    # a copy was trained
    assert same(before[0], weights(start)) and (projection is None or same(before[1], weights(projection)))
    assert not same(before[0], weights(model.encoder))
    if with_projection:
        assert model.projection is not None and not same(before[1], weights(model.projection))
    found, _ = predict(model, images, "cpu")
    assert agreement(found, labels, 3, 3).accuracy == 1
    assert loss < -4  # -5 log 3 = -5.5 at best

    # self-labels make one that is less sure surer of the same
    with torch.no_grad():
        model.head.weight.mul_(0.2)
        model.head.bias.mul_(0.2)
    _, confidence = predict(model, images, "cpu")
    told = list[LoopReport]()
    assert train_self_labels(model, images, VIEWS, SELF, Execution("cpu", on_report=told.append))
    assert not model.training
    assert [r.step for r in told] == [20, 30]
    again, surer = predict(model, images, "cpu")
    assert (again == found).all()
    assert surer.mean() > confidence.mean()
    new_images, new_labels = coloured(seed=1)
    assert agreement(predict(model, new_images, "cpu")[0], new_labels, 3, 3).accuracy == 1


def test_scan_of_heads_alone_leaves_the_encoder_as_it_is(
    coloured: Pictures, knowing: Callable[[], Encoder]
) -> None:
    images, labels = coloured()
    start = knowing()
    config = SCAN.model_copy(update={"total_steps": 0})
    trained = train_scan(start, images, near(images), 3, VIEWS, config, Execution("cpu"))
    assert trained is not None
    model, loss = trained
    assert same(weights(start), weights(model.encoder)) and loss < -4
    found, _ = predict(model, images, "cpu")
    assert agreement(found, labels, 3, 3).accuracy == 1


def test_the_head_with_the_lowest_loss_is_kept(coloured: Pictures, tmp_path: Path) -> None:
    images, _ = coloured()
    neighbours = near(images)
    config = SCAN.model_copy(update={"total_steps": 3, "heads": 4, "head_steps": 3, "save_every_sec": 1e-9})
    path = tmp_path / "state.pt"
    trained = train_scan(encoder(), images, neighbours, 3, VIEWS, config, Execution("cpu", path))
    assert trained is not None
    model, loss = trained
    # all heads, from the last state
    state = torch.load(path, weights_only=True)
    assert state["step"] == 3
    weight, bias = state["heads"]["weight"], state["heads"]["bias"]
    assert weight.shape == (4, 16, 3)
    features = encode(model.encoder, images, "cpu")
    z = torch.tensor(10 * features / np.linalg.norm(features, axis=1, keepdims=True))
    logits = [z @ weight[i] + bias[i] for i in range(4)]
    losses = [float(scan_losses(one, one[neighbours[:, 0]], 5.0)) for one in logits]
    assert len({round(one, 3) for one in losses}) == 4
    assert loss == pytest.approx(min(losses), abs=1e-4)
    best = int(np.argmin(losses))
    assert torch.equal(model.head.weight, weight[best].T) and torch.equal(model.head.bias, bias[best, 0])
    # and it is what the network says
    assert (predict(model, images, "cpu")[0] == logits[best].argmax(1).numpy()).all()


def test_the_heads_alone_find_the_clusters_of_features_that_stand_still(
    coloured: Pictures, knowing: Callable[[], Encoder]
) -> None:
    images, labels = coloured()
    still = SCAN.model_copy(update={"total_steps": 1, "optimizer": OptimizerConfig(learning_rate=1e-9)})
    losses = {}
    for steps in (100, 0):
        config = still.model_copy(update={"head_steps": steps})
        trained = train_scan(knowing(), images, near(images), 3, VIEWS, config, Execution("cpu"))
        assert trained is not None
        model, losses[steps] = trained
        if steps:
            assert agreement(predict(model, images, "cpu")[0], labels, 3, 3).accuracy == 1
    assert losses[100] == pytest.approx(-5 * math.log(3), abs=0.1)
    assert losses[0] > losses[100] + 0.5


@pytest.mark.parametrize("projection", [None, Projection(16, 8, 6)], ids=["plain", "projection"])
def test_a_scan_network_is_built_from_its_config(coloured: Pictures, projection: Projection | None) -> None:
    images, _ = coloured(6)
    model = ScanClassifier(encoder(), 3, projection).eval()
    again = build_classifier(model.config).eval()
    assert isinstance(again, ScanClassifier)
    again.load_state_dict(model.state_dict())
    for a, b in zip(predict(model, images, "cpu"), predict(again, images, "cpu"), strict=True):
        assert (a == b).all()
    # what its head sees has the length that it says
    z = model.embed(torch.randn(4, 3, 8, 8))
    torch.testing.assert_close(z.norm(dim=1), torch.full((4,), 10.0))


def test_scan_s_views_are_made_in_float32(coloured: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = coloured()
    near = np.stack([(np.arange(48) + 3) % 48, (np.arange(48) + 6) % 48], 1)
    views = VIEWS.model_copy(update={"colour_matrix_share": 1.0, "hue": 0.2})
    seen: list[torch.Tensor] = []
    network = encoder()
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]) if module.training else None)
    monkeypatch.setattr(device, "has_fast_bf16", lambda where: True)
    train_scan(network, images, near, 3, views, SCAN.model_copy(update={"total_steps": 1}), Execution("cpu"))
    (given,) = seen
    generator = step_generator(0, 0, "scan")
    rows = torch.randperm(48, generator=generator)[:24]
    others = torch.tensor(near)[rows, torch.randint(2, (24,), generator=generator)]
    x = torch.tensor(images[torch.cat([rows, others])]).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(given, random_views(x, views, generator), rtol=0, atol=1e-5)


def test_scan_stopped_and_resumed_is_bit_for_bit_undisturbed(coloured: Pictures, tmp_path: Path) -> None:
    images, _ = coloured()
    config = SCAN.model_copy(update={"total_steps": 9, "head_steps": 5})
    path = tmp_path / "state.pt"

    def train(
        start: Encoder, seed: int = 0, path: Path | None = None, stop: int = 10**6, c: int = 3
    ) -> tuple[ScanClassifier, float] | None:
        torch.manual_seed(11)
        return train_scan(
            start,
            images,
            near(images),
            c,
            VIEWS,
            config,
            Execution("cpu", path, should_stop=stop_before(stop)),
            seed,
            Projection(16, 8, 6),
        )

    undisturbed, other = train(encoder()), train(encoder(), seed=1)
    assert undisturbed is not None and other is not None
    assert not same(weights(undisturbed[0]), weights(other[0]))
    # stopped among the heads (5 questions) it starts over, behind them it goes on
    for stop, step in ((0, None), (3, None), (5, 0), (2, 2), (4, 6), (10**6, 9)):
        start = encoder() if step is None or stop == 5 else encoder(seed=7)
        resumed = train(start, path=path, stop=stop)
        assert (resumed is None) == (stop < 10**6)
        assert (torch.load(path, weights_only=True)["step"] if path.exists() else None) == step
    assert resumed is not None
    assert same(weights(resumed[0]), weights(undisturbed[0]))
    assert resumed[1] == undisturbed[1]
    with pytest.raises(TrainingStateError, match="another network"):
        train(encoder(), path=path, c=4)


def test_self_labelling_stopped_and_resumed_is_bit_for_bit_undisturbed(
    coloured: Pictures, tmp_path: Path
) -> None:
    images, _ = coloured()
    config = SELF.model_copy(update={"total_steps": 9, "threshold": 0.35})

    def train(seed: int, path: Path | None = None, stop: int = 10**6) -> tuple[ScanClassifier, bool]:
        torch.manual_seed(seed)
        model = ScanClassifier(encoder(seed), 3)
        done = train_self_labels(
            model, images, VIEWS, config, Execution("cpu", path, should_stop=stop_before(stop)), 0
        )
        assert not model.training
        return model, done

    undisturbed, _ = train(0)
    assert not same(weights(undisturbed), weights(ScanClassifier(encoder(), 3)))
    path = tmp_path / "state.pt"
    for i, stop in enumerate((3, 0, 4, 10**6)):
        resumed, done = train(i, path, stop)
        assert done == (stop == 10**6)
    assert same(weights(resumed), weights(undisturbed))


def test_nobody_sure_teaches_nothing(coloured: Pictures) -> None:
    images, _ = coloured()
    torch.manual_seed(0)
    model = ScanClassifier(encoder(), 3)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    config = SELF.model_copy(update={"total_steps": 3, "optimizer": OptimizerConfig(weight_decay=0.0)})
    reports = list[LoopReport]()
    before = dict(model.named_parameters())
    before = {key: value.detach().clone() for key, value in before.items()}
    assert train_self_labels(model, images, VIEWS, config, Execution("cpu", on_report=reports.append))
    assert reports[-1].loss == 0
    assert same(before, {key: value.detach() for key, value in model.named_parameters()})


def test_clusters_weigh_the_same_in_self_labels(coloured: Pictures, knowing: Callable[[], Encoder]) -> None:
    # 1 red picture among 24: its cluster counts for as much as the other one
    images, labels = coloured(48, 2)
    images = np.concatenate([images[labels == 0][:1], images[labels == 1][:23]])
    views = ViewsConfig(area=(1.0, 1.0), max_shift=0.0, random_flip=False, jitter_share=0.0, grey_share=0.0)
    torch.manual_seed(0)
    model = ScanClassifier(knowing(), 2)
    # sure by what the head sees: red against green
    with torch.no_grad():
        z = model.eval().embed(torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1)
        axis = z[0] - z[1:].mean(0)
        middle = float((z[0] + z[1:].mean(0)) @ axis / 2)
        scale = 8 / float(axis @ axis)
        model.head.weight.copy_(torch.stack([axis, -axis]) * scale)
        model.head.bias.copy_(torch.tensor([-middle, middle]) * scale)
    found, confidence = predict(model, images, "cpu")
    assert found.tolist() == [0] + [1] * 23 and confidence.min() > 0.9
    # the loss of the first step, in train mode, by hand
    x = torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        each = F.cross_entropy(model.train()(x), torch.tensor(found), reduction="none")
    expected = float((each[0] + each[1:].mean()) / 2)
    reports = list[LoopReport]()
    config = SELF.model_copy(update={"total_steps": 1})
    model.eval()
    train_self_labels(model, images, views, config, Execution("cpu", on_report=reports.append))
    assert reports[0].loss == pytest.approx(expected, rel=0.05)
    assert abs(expected - float(each.mean())) > 0.2 * expected


def test_fewer_images_than_clusters_are_refused(coloured: Pictures) -> None:
    images, _ = coloured(4)
    with pytest.raises(ValueError, match="5 clusters of 4 images"):
        train_scan(encoder(), images, near(images, 2), 5, VIEWS, SCAN, Execution("cpu"))
    with pytest.raises(ValueError, match="5 clusters of 4 images"):
        kmeans_labels(np.eye(4, dtype=np.float32), 5)


# --- k-means ----------------------------------------------------------------------------------------


def test_kmeans_is_scikit_learns_on_unit_features() -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(4, 6))
    truth = np.arange(80) % 4
    features = (centres[truth] + generator.normal(scale=0.1, size=(80, 6))).astype(np.float32)
    features *= generator.uniform(0.1, 10, (80, 1)).astype(np.float32)
    found = kmeans_labels(features, 4, seed=3)
    assert found.dtype == np.int64
    assert adjusted_rand_score(truth, found) == 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert adjusted_rand_score(KMeans(4, n_init=10, random_state=0).fit_predict(unit), found) == 1
    assert (kmeans_labels(features, 4, seed=3) == found).all()
    # without the unit length the long ones would lead
    assert adjusted_rand_score(truth, KMeans(4, n_init=10, random_state=0).fit_predict(features)) < 0.9
    features[0] = 0  # no direction, and no error
    assert set(kmeans_labels(features, 4).tolist()) == {0, 1, 2, 3}
