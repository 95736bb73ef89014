from pathlib import Path

import numpy as np
import pytest
import torch

from sdviz.config.nodes import OptimizerConfig, TemiConfig
from sdviz.detection.knn import nearest_others, unit_length
from sdviz.nn.loop import Execution
from sdviz.scan.metrics import agreement
from sdviz.scan.temi import temi_labels, temi_losses

from .test_turtle import CPU, groups

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = TemiConfig(
    total_steps=300,
    batch_size=128,
    heads=4,
    hidden=(32, 16),
    optimizer=OptimizerConfig(learning_rate=3e-3),
    teacher_decay=0.95,
)


def neighbours(x: np.ndarray) -> np.ndarray:
    return nearest_others(unit_length(x), 10, device="cpu")


def test_groups_are_found() -> None:
    x, labels = groups()
    found = temi_labels(x, neighbours(x), 4, QUICK, CPU)
    assert found is not None
    probabilities, loss = found
    assert probabilities.shape == (240, 4) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert agreement(probabilities.argmax(1), labels, 4, 4).accuracy == 1
    assert np.isfinite(loss)


def test_the_loss_of_sure_equal_clusters_is_the_information_in_them() -> None:
    # both images surely in the same one of C equal clusters: log (1^beta / (1 / C)) = log C, in each direction
    sure = torch.eye(4).repeat(2, 1)[None]
    losses = temi_losses(sure, sure, torch.full((1, 1, 4), 0.25), torch.ones(8))
    assert losses.tolist() == pytest.approx([-np.log(4)])


def test_the_loss_by_hand() -> None:
    student, teacher = torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.6, 0.4]]])
    prior, weight = torch.tensor([[[0.7, 0.3]]]), torch.tensor([0.5])
    expected = -0.5 * np.log(0.54**0.6 / 0.7 + 0.04**0.6 / 0.3)
    assert temi_losses(student, teacher, prior, weight).tolist() == pytest.approx([expected], rel=1e-6)


def test_a_pair_that_the_heads_disagree_on_counts_for_less() -> None:
    p = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    prior = torch.full((1, 1, 2), 0.5)
    alone = temi_losses(p[:, :1], p[:, :1], prior, torch.ones(1))
    both = temi_losses(p, p, prior, torch.tensor([1.0, 0.0]))
    assert both.tolist() == pytest.approx((alone / 2).tolist())


def test_the_same_seed_gives_the_same_labels_and_another_one_others() -> None:
    x, _ = groups(spread=1.0)
    near = neighbours(x)
    a, b, c = (temi_labels(x, near, 4, QUICK, CPU, seed) for seed in (0, 0, 1))
    assert a is not None and b is not None and c is not None
    assert np.array_equal(a[0], b[0]) and a[1] == b[1]
    assert not np.array_equal(a[0], c[0])


def test_stopped_and_resumed_it_finds_the_same(tmp_path: Path) -> None:
    x, _ = groups(spread=1.0)
    near, left = neighbours(x), iter([False] * 40 + [True])
    state = tmp_path / "state.pt"
    stopping = Execution("cpu", state, should_stop=lambda: next(left))
    assert temi_labels(x, near, 4, QUICK, stopping) is None and state.is_file()
    resumed = temi_labels(x, near, 4, QUICK, Execution("cpu", state))
    whole = temi_labels(x, near, 4, QUICK, CPU)
    assert resumed is not None and whole is not None
    assert np.array_equal(resumed[0], whole[0]) and resumed[1] == whole[1]


def test_fewer_images_than_clusters_are_refused() -> None:
    x, _ = groups()
    with pytest.raises(ValueError, match="4 clusters of 3 images"):
        temi_labels(x[:3], neighbours(x)[:3], 4, QUICK, CPU)
