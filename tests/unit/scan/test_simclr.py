from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sdviz.config.nodes import OptimizerConfig, PretrainingConfig, SimCLRConfig, ViewsConfig
from sdviz.nn.classifier import Projection
from sdviz.nn.encoder import Encoder
from sdviz.nn.loop import Execution, LoopReport, TrainingDiverged, TrainingStateError
from sdviz.nn.supervised import train_supervised
from sdviz.scan.simclr import train_simclr
from tests.stopping import stop_before

pytestmark = pytest.mark.usefixtures("one_thread")

Pictures = Callable[..., tuple[np.ndarray, np.ndarray]]
FAST = OptimizerConfig(learning_rate=1e-2)
SIMCLR = SimCLRConfig(
    total_steps=60, batch_size=16, projection_hidden=8, projection_dim=4, temperature=0.2, optimizer=FAST
)
SUPERVISED = PretrainingConfig(data="elsewhere", total_steps=60, batch_size=16, optimizer=FAST)
VIEWS = ViewsConfig(area=(0.6, 1.0), brightness=0.1, contrast=0.1, saturation=0.1, hue=0.0, grey_share=0.0)


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder("small", 4)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- SimCLR -----------------------------------------------------------------------------------------


def test_it_learns_to_tell_images_apart(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(24)
    network, reports = encoder(), list[LoopReport]()
    before = weights(network)
    projection = train_simclr(network, images, VIEWS, SIMCLR, Execution("cpu", on_report=reports.append))
    assert projection is not None
    assert [r.step for r in reports] == [20, 40, 60]
    assert reports[-1].loss < 0.85 * reports[0].loss < 0.85 * np.log(31)
    assert not network.training and not projection.training
    assert not same(before, weights(network))
    assert projection(network(torch.zeros(2, 3, 8, 8))).shape == (2, 4)
    assert projection.config == {"dim": 16, "hidden": 8, "out": 4}
    again = Projection(**projection.config)
    again.load_state_dict(projection.state_dict())


@pytest.mark.parametrize("method", ["simclr", "supervised"])
def test_stopped_and_resumed_is_bit_for_bit_undisturbed(
    coloured: Pictures, tmp_path: Path, method: str
) -> None:
    images, labels = coloured()

    def train(network: Encoder, seed: int = 0, path: Path | None = None, stop: int = 10**6) -> object:
        if method == "simclr":
            config = SIMCLR.model_copy(update={"total_steps": 9})
            return train_simclr(
                network, images, VIEWS, config, Execution("cpu", path, should_stop=stop_before(stop)), seed
            )
        given = SUPERVISED.model_copy(update={"total_steps": 9})
        return train_supervised(
            network, images, labels, VIEWS, given, Execution("cpu", path, should_stop=stop_before(stop)), seed
        )

    undisturbed, other = encoder(), encoder()
    result = train(undisturbed)
    assert result
    train(other, seed=1)
    assert not same(weights(undisturbed), weights(other))

    path = tmp_path / "state.pt"
    for i, stop in enumerate((3, 0, 4, 10**6)):
        network = encoder(seed=i)
        resumed = train(network, path=path, stop=stop)
        assert bool(resumed) == (stop == 10**6)
        assert not network.training
    assert same(weights(network), weights(undisturbed))
    if isinstance(result, Projection) and isinstance(resumed, Projection):
        assert same(weights(resumed), weights(result))
    # the state is that of this network alone
    with pytest.raises(TrainingStateError, match="another network"):
        train(Encoder("small", 5), path=path)


def test_a_set_smaller_than_a_batch_is_a_batch_of_its_own(coloured: Pictures) -> None:
    images, _ = coloured(2)
    config = SIMCLR.model_copy(update={"total_steps": 2})
    assert train_simclr(encoder(), images, VIEWS, config, Execution("cpu")) is not None


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_are_refused(coloured: Pictures, n: int) -> None:
    images, _ = coloured(4)
    with pytest.raises(ValueError, match=f"SimCLR needs at least 2 images, there are {n}"):
        train_simclr(encoder(), images[:n], VIEWS, SIMCLR, Execution("cpu"))


def test_it_diverges_with_a_message(coloured: Pictures) -> None:
    images, labels = coloured()
    wild = OptimizerConfig(name="sgd", learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match="the encoder's .* try a learning rate below"):
        train_simclr(encoder(), images, VIEWS, SIMCLR.model_copy(update={"optimizer": wild}), Execution("cpu"))
    with pytest.raises(TrainingDiverged, match="the pre-training's .* try a learning rate below"):
        config = SUPERVISED.model_copy(update={"optimizer": wild})
        train_supervised(encoder(), images, labels, VIEWS, config, Execution("cpu"))
