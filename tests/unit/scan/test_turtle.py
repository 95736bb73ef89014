from pathlib import Path

import numpy as np
import pytest
import torch

from sdviz.config.nodes import TurtleConfig
from sdviz.nn.loop import Execution, LoopReport
from sdviz.scan.metrics import agreement
from sdviz.scan.turtle import turtle_labels

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = TurtleConfig(
    total_steps=150,
    batch_size=200,
    classifier_learning_rate=1e-2,
)
CPU = Execution("cpu")


def groups(n: int = 240, dim: int = 16, seed: int = 0, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Points float32 (n,dim) around four centres, and the centre of each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    centres = np.eye(4, dim) * 2
    return (centres[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32), labels


def test_groups_are_found() -> None:
    x, labels = groups()
    found = turtle_labels([x], 4, QUICK, CPU)
    assert found is not None
    probabilities, loss = found
    assert probabilities.shape == (240, 4) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert agreement(probabilities.argmax(1), labels, 4, 4).accuracy == 1
    # the entropy of four equal clusters is log 4
    assert loss < -QUICK.entropy_weight * np.log(4) + np.log(4)


def test_two_spaces_know_more_than_one() -> None:
    # the same groups under noise of each space's own
    (first, labels), (second, _) = groups(seed=0, spread=0.9), groups(seed=1, spread=0.9)

    def accuracy(spaces: list[np.ndarray]) -> float:
        found = turtle_labels(spaces, 4, QUICK, CPU)
        assert found is not None
        return agreement(found[0].argmax(1), labels, 4, 4).accuracy

    one, other, both = accuracy([first]), accuracy([second]), accuracy([first, second])
    assert both > max(one, other) + 0.02


def test_the_same_seed_gives_the_same_labels_and_another_one_others() -> None:
    x, _ = groups(spread=1.0)
    a, b, c = (turtle_labels([x], 4, QUICK, CPU, seed) for seed in (0, 0, 1))
    assert a is not None and b is not None and c is not None
    assert np.array_equal(a[0], b[0]) and a[1] == b[1]
    assert not np.array_equal(a[0], c[0])


def test_the_scale_of_features_is_nothing() -> None:
    x, _ = groups()
    a, b = turtle_labels([x], 4, QUICK, CPU), turtle_labels([x * 64 + 128], 4, QUICK, CPU)
    assert a is not None and b is not None
    np.testing.assert_allclose(a[0], b[0], atol=1e-3)


def test_stopped_and_resumed_it_finds_the_same(tmp_path: Path) -> None:
    x, _ = groups(spread=1.0)
    left = iter([False] * 40 + [True])
    state, reports = tmp_path / "state.pt", list[LoopReport]()
    assert turtle_labels([x], 4, QUICK, Execution("cpu", state, reports.append, lambda: next(left))) is None
    assert [one.step for one in reports] == [20, 40] and state.is_file()
    resumed = turtle_labels([x], 4, QUICK, Execution("cpu", state))
    whole = turtle_labels([x], 4, QUICK, CPU)
    assert resumed is not None and whole is not None
    assert np.array_equal(resumed[0], whole[0]) and resumed[1] == whole[1]


def test_fewer_images_than_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="4 clusters of 3 images"):
        turtle_labels([groups()[0][:3]], 4, QUICK, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_finds_the_same_groups() -> None:
    x, _ = groups()
    a, b = turtle_labels([x], 4, QUICK, CPU), turtle_labels([x], 4, QUICK, Execution("cuda"))
    assert a is not None and b is not None
    assert np.array_equal(a[0].argmax(1), b[0].argmax(1))
