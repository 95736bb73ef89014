from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdviz.config.nodes import DistillationConfig, NetworkConfig, OptimizerConfig
from sdviz.nn.batches import encode
from sdviz.nn.distillation import train_distilled
from sdviz.nn.encoder import Encoder
from sdviz.nn.loop import Execution, LoopReport
from tests.stopping import stop_before

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = DistillationConfig(
    teacher=NetworkConfig(), total_steps=60, batch_size=16, optimizer=OptimizerConfig(learning_rate=1e-2)
)


def student(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder("small", 4).eval()


def test_the_student_learns_what_the_teacher_tells_apart(
    coloured: Callable[..., tuple[np.ndarray, np.ndarray]],
) -> None:
    images, labels = coloured()
    # a teacher that gives each colour a direction of its own, and two further numbers of no meaning
    features = np.eye(5, dtype=np.float32)[labels] * 7
    reports: list[LoopReport] = []
    network = student()
    assert train_distilled(network, images, features, CONFIG, Execution("cpu", on_report=reports.append))
    assert not network.training
    # 1 - cosine: from about 1 to near 0
    assert 0 <= reports[-1].loss < 0.1 < reports[0].loss
    new_images, new_labels = coloured(seed=1)
    z = encode(network, new_images)
    centres = np.stack([encode(network, images)[labels == c].mean(0) for c in range(3)])
    assert (((z[:, None] - centres) ** 2).sum(-1).argmin(1) == new_labels).all()


def test_a_stopped_training_goes_on_to_the_same_bits(
    coloured: Callable[..., tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    images, labels = coloured()
    features = np.eye(4, dtype=np.float32)[labels]
    config = CONFIG.model_copy(update={"total_steps": 8})
    whole, part = student(), student()
    train_distilled(whole, images, features, config, Execution("cpu"), seed=3)
    path = tmp_path / "state.pt"
    stopped = Execution("cpu", path, should_stop=stop_before(5))
    assert not train_distilled(part, images, features, config, stopped, seed=3)
    part = student(9)
    assert train_distilled(part, images, features, config, Execution("cpu", path), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), part.parameters(), strict=True))
    other = student()
    train_distilled(other, images, features, config, Execution("cpu"), seed=4)
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(4, 3), (5,)])
def test_features_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    images = np.zeros((5, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="of 5 images to learn from"):
        train_distilled(student(), images, np.ones(shape, np.float32), CONFIG, Execution("cpu"))
