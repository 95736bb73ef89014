from __future__ import annotations

import numpy as np
import pytest
import torch

from sdviz.config import ClustererConfig
from sdviz.nn.classifier import SmallClassifier
from sdviz.scan.classifier_training import accuracy, augment, rate_factor, train_classifier

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
    reports: list[tuple[int, float]] = []
    model = train_classifier(
        images, labels, 2, TINY, device="cpu", on_report=lambda step, loss: reports.append((step, loss))
    )
    assert model is not None
    assert not model.training
    assert [step for step, _ in reports] == [20, 40, 60]
    assert reports[-1][1] < reports[0][1]
    assert accuracy(model, images, labels) == (1.0, 60)
    assert accuracy(model, images, 1 - labels) == (0.0, 60)


def test_the_same_seed_gives_the_same_weights(
    one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]
) -> None:
    config = TINY.model_copy(update={"total_steps": 5})
    first, again, other = (train_classifier(*two_kinds, 2, config, seed, "cpu") for seed in (3, 3, 4))
    assert first is not None and again is not None and other is not None
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)


def test_it_stops_before_the_next_step(one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]) -> None:
    asked = iter([False, False, True])
    assert train_classifier(*two_kinds, 2, TINY, device="cpu", should_stop=lambda: next(asked)) is None
    assert next(asked, None) is None


def test_a_loss_that_is_no_number_is_an_error(
    one_thread: None, two_kinds: tuple[np.ndarray, np.ndarray]
) -> None:
    config = TINY.model_copy(update={"learning_rate": 1e30, "weight_decay": 0.0})
    with pytest.raises(FloatingPointError, match="try a learning rate below 1e\\+30"):
        train_classifier(*two_kinds, 2, config, device="cpu")


def test_no_images_and_labels_out_of_range_are_refused(two_kinds: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = two_kinds
    with pytest.raises(ValueError, match="no images"):
        train_classifier(images[:0], labels[:0], 2, TINY)
    for bad in (labels + 1, labels - 1):
        with pytest.raises(ValueError, match="must lie in 0..1"):
            train_classifier(images, bad, 2, TINY)


def test_augment_moves_a_pixel_no_further_than_asked_and_both_ways() -> None:
    x = torch.full((400, 3, 9, 9), -1.0)
    x[:, :, 4, 4] = 1.0
    config = TINY.model_copy(update={"max_shift_px": 2, "random_flip": False, "colour_jitter": 0.0})
    moved = augment(x, config, torch.Generator().manual_seed(0))
    where = moved[:, 0].flatten(1).argmax(1)
    rows, columns = where // 9 - 4, where % 9 - 4
    assert (moved.sum(dim=(1, 2, 3)) == x[0].sum()).all()
    for shift in (rows, columns):
        assert sorted(set(shift.tolist())) == [-2, -1, 0, 1, 2]


def test_augment_flips_about_half() -> None:
    x = torch.zeros(400, 3, 4, 4)
    x[:, :, :, 0] = 1.0
    config = TINY.model_copy(update={"max_shift_px": 0, "colour_jitter": 0.0})
    flipped = augment(x, config, torch.Generator().manual_seed(0))[:, 0, 0, 3] == 1.0
    assert 150 < int(flipped.sum()) < 250


def test_augment_changes_colours_of_each_image_by_itself_and_stays_in_range() -> None:
    x = torch.rand(1, 3, 8, 8).mul(2).sub(1).repeat(50, 1, 1, 1)
    config = TINY.model_copy(update={"max_shift_px": 0, "random_flip": False, "colour_jitter": 0.5})
    y = augment(x, config, torch.Generator().manual_seed(0))
    assert y.min() >= -1 and y.max() <= 1
    assert len({round(float(one.mean()), 5) for one in y}) == 50
    off = config.model_copy(update={"colour_jitter": 0.0})
    assert torch.equal(augment(x, off, torch.Generator().manual_seed(0)), x)


def test_accuracy_counts_labelled_images_only(one_thread: None) -> None:
    model = SmallClassifier(2, 4).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 0.0]))
    images = np.zeros((5, 8, 8, 3), np.uint8)
    assert accuracy(model, images, np.array([0, 0, 1, -1, -1]), batch_size=2) == (2 / 3, 3)
    with pytest.raises(ValueError, match="no labelled images"):
        accuracy(model, images, np.full(5, -1))


def test_the_rate_rises_then_falls() -> None:
    rates = [rate_factor(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=1e-6)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates.index(max(rates)) == 9
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001
    assert rate_factor(0, 1) == 1.0
