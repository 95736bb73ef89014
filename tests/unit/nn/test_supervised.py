from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sdviz.config.nodes import ClustererConfig, OptimizerConfig, PretrainingConfig, ViewsConfig
from sdviz.nn.batches import encode
from sdviz.nn.classifier import SmallClassifier
from sdviz.nn.encoder import Encoder
from sdviz.nn.loop import Execution, LoopReport, TrainingDiverged
from sdviz.nn.supervised import accuracy, classifier_views, train_classifier, train_linear, train_supervised
from sdviz.nn.views import random_views

Pictures = Callable[..., tuple[np.ndarray, np.ndarray]]
FAST = OptimizerConfig(learning_rate=1e-2)
SUPERVISED = PretrainingConfig(data="elsewhere", total_steps=60, batch_size=16, optimizer=FAST)
VIEWS = ViewsConfig(area=(0.6, 1.0), brightness=0.1, contrast=0.1, saturation=0.1, hue=0.0, grey_share=0.0)
TINY = ClustererConfig(width=4, total_steps=60, batch_size=16, max_shift_px=1, colour_jitter=0.1)


@pytest.fixture
def two_kinds() -> tuple[np.ndarray, np.ndarray]:
    """Bright above or bright below, uint8 (60,8,8,3) and labels; a flip or a colour changes no label."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = rng.integers(0, 120, (60, 8, 8, 3))
    images[labels == 0, :4] += 120
    images[labels == 1, 4:] += 120
    return images.astype(np.uint8), labels.astype(np.int64)


def test_it_learns(one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = two_kinds
    reports: list[LoopReport] = []
    model = train_classifier(images, labels, 2, TINY, Execution("cpu", on_report=reports.append))
    assert model is not None
    assert not model.training
    assert [r.step for r in reports] == [20, 40, 60]
    assert reports[-1].loss < reports[0].loss
    assert accuracy(model, images, labels) == (1.0, 60)
    assert accuracy(model, images, 1 - labels) == (0.0, 60)


def test_the_same_seed_gives_the_same_weights(
    one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]
) -> None:
    config = TINY.model_copy(update={"total_steps": 5})
    first, again, other = (
        train_classifier(*two_kinds, 2, config, Execution("cpu"), seed) for seed in (3, 3, 4)
    )
    assert first is not None and again is not None and other is not None
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)


def test_it_stops_before_the_next_step(one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]) -> None:
    asked = iter([False, False, True])
    assert train_classifier(*two_kinds, 2, TINY, Execution("cpu", should_stop=lambda: next(asked))) is None
    assert next(asked, None) is None


def test_a_loss_that_is_no_number_is_an_error(
    one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]
) -> None:
    config = TINY.model_copy(update={"learning_rate": 1e30, "weight_decay": 0.0})
    with pytest.raises(TrainingDiverged, match="the clusterer's .* try a learning rate below"):
        train_classifier(*two_kinds, 2, config, Execution("cpu"))


def test_no_images_and_labels_out_of_range_are_refused(two_kinds: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = two_kinds
    with pytest.raises(ValueError, match="no images"):
        train_classifier(images[:0], labels[:0], 2, TINY, Execution("cpu"))
    for bad in (labels + 1, labels - 1):
        with pytest.raises(ValueError, match="must lie in 0..1"):
            train_classifier(images, bad, 2, TINY, Execution("cpu"))


def test_its_views_move_a_pixel_about_as_far_as_asked_and_both_ways() -> None:
    x = torch.full((400, 3, 33, 33), -1.0)
    x[:, :, 16, 16] = 1.0
    config = TINY.model_copy(update={"max_shift_px": 2, "random_flip": False, "colour_jitter": 0.0})
    moved = random_views(x, classifier_views(config, 33), torch.Generator().manual_seed(0))
    where = moved[:, 0].flatten(1).argmax(1)
    for shift in (where // 33 - 16, where % 33 - 16):
        assert sorted(set(shift.tolist())) == [-2, -1, 0, 1, 2]


def test_its_views_flip_about_half() -> None:
    x = torch.zeros(400, 3, 4, 4)
    x[:, :, :, 0] = 1.0
    config = TINY.model_copy(update={"max_shift_px": 0, "colour_jitter": 0.0})
    views = random_views(x, classifier_views(config, 4), torch.Generator().manual_seed(0))
    assert 150 < int((views[:, 0, 0, 3] > 0.9).sum()) < 250


def test_its_views_change_colours_as_far_as_asked() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).repeat(50, 1, 1, 1)
    config = TINY.model_copy(update={"max_shift_px": 0, "random_flip": False, "colour_jitter": 0.5})
    y = random_views(x, classifier_views(config, 8), torch.Generator().manual_seed(0))
    assert len({float(one.mean()) for one in y}) == 50
    off = config.model_copy(update={"colour_jitter": 0.0})
    plain = random_views(x, classifier_views(off, 8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain, x, rtol=0, atol=1e-5)


def test_accuracy_counts_labelled_images_only(one_thread: None) -> None:
    model = SmallClassifier(2, 4).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 0.0]))
    images = np.zeros((5, 8, 8, 3), np.uint8)
    assert accuracy(model, images, np.array([0, 0, 1, -1, -1])) == (2 / 3, 3)
    with pytest.raises(ValueError, match="no labelled images"):
        accuracy(model, images, np.full(5, -1))


# --- an encoder -------------------------------------------------------------------------------------


def test_labels_are_learned(one_thread: None, coloured: Pictures) -> None:
    images, labels = coloured()
    network, reports = Encoder("small", 4), list[LoopReport]()
    assert train_supervised(
        network, images, labels, VIEWS, SUPERVISED, Execution("cpu", on_report=reports.append)
    )
    assert [r.step for r in reports] == [20, 40, 60]
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert not network.training
    # what was learned is in the features: a line through them tells unseen pictures apart
    features = encode(network, images, "cpu")
    new_images, new_labels = coloured(seed=1)
    line = LogisticRegression(max_iter=1000).fit(features, labels)
    assert line.score(encode(network, new_images, "cpu"), new_labels) == 1


def test_images_without_a_label_are_refused(one_thread: None, coloured: Pictures) -> None:
    images, labels = coloured(6)
    for some, given in ((images[:0], labels[:0]), (images, labels - 1)):
        with pytest.raises(ValueError, match="needs images that all have a label"):
            train_supervised(Encoder("small", 4), some, given, VIEWS, SUPERVISED, Execution("cpu"))


def test_a_linear_head_is_a_logistic_regression_on_unit_features(one_thread: None) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    encoder = Encoder("small", 4)
    features = (np.eye(16)[labels] + 0.4 * rng.normal(size=(90, 16))).astype(np.float32)
    model = train_linear(encoder, features, labels, 3)
    x = 10 * features / np.linalg.norm(features, axis=1, keepdims=True)
    # scikit-learn sums the loss and halves the squares
    theirs = LogisticRegression(C=1 / (2 * 1e-4 * 90), tol=1e-8, max_iter=5000).fit(x, labels)
    with torch.no_grad():
        ours = model.head(torch.tensor(x)).softmax(1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=0.02)
    assert not model.training and model.config["n_classes"] == 3
    assert all(torch.equal(a, b) for a, b in zip(model.encoder.parameters(), encoder.parameters(), strict=True))
