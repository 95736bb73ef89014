from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from sdviz.config.nodes import DiffusionConfig, UNetConfig
from sdviz.diffusion import training
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.diffusion.training import COMPILE_FROM_STEPS, train_noise_predictor
from sdviz.nn.loop import Execution, LoopReport
from sdviz.nn.unet import NoisePredictor

UNET = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=2, dropout=0.1)
CONFIG = DiffusionConfig(
    batch_size=8,
    total_steps=2 * COMPILE_FROM_STEPS,
    learning_rate=1e-3,
    warmup_steps=4,
    ema_decay=0.9,
    mixed_precision="no",
)
LABELS = np.arange(12) % 3
Backend = Callable[[torch.fx.GraphModule, list[torch.Tensor]], Callable[..., Any]]


class Counting:
    """Runs what it is given as it stands, and counts: compiled graphs, and calls of them."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: torch.Tensor) -> Any:  # noqa: ANN401
            self.calls += 1
            return graph(*args)

        return run


def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    raise RuntimeError("Cannot find a working triton installation.\nReally\n\nSet TORCH_LOGS for more.")


def plain(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    return graph.forward


@pytest.fixture
def images(tiny_images: Callable[..., np.ndarray]) -> np.ndarray:
    return tiny_images(12)


@pytest.fixture
def train(
    tiny_network: Callable[..., NoisePredictor], images: np.ndarray
) -> Callable[..., tuple[NoisePredictor, NoisePredictor, list[LoopReport]]]:
    """Trains a few steps of a long training; returns the network, its average and the reports."""

    def run(
        n_steps: int,
        device: str = "cpu",
        state_path: Path | None = None,
        unet: UNetConfig = UNET,
        **changes: Any,  # noqa: ANN401
    ) -> tuple[NoisePredictor, NoisePredictor, list[LoopReport]]:
        network = tiny_network(unet)
        asked, reports = iter(range(10**6)), list[LoopReport]()
        average, complete = train_noise_predictor(
            network,
            images,
            LABELS,
            NoiseSchedule.linear(1000),
            DiffusionConfig(**(CONFIG.model_dump() | changes)),
            Execution(device, state_path, reports.append, lambda: next(asked) >= n_steps),
        )
        assert not complete
        return network, average, reports

    return run


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_only_cuda_is_compiled_for(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", never)
    train(2)
    assert not [one for one in caplog.records if one.name.startswith("sdviz")]
    assert training.COMPILERS == {"cuda": "inductor"}


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_compiled_it_trains_the_same_network_under_the_same_names(
    train: Callable[..., Any],
    tiny_network: Callable[..., NoisePredictor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    mixed_precision: str,
) -> None:
    expected = tiny_network(UNET).state_dict().keys()
    _, uncompiled, _ = train(6, mixed_precision=mixed_precision)
    backend = Counting()
    monkeypatch.setitem(training.COMPILERS, "cpu", backend)
    file = tmp_path / "state.pt"
    network, average, _ = train(6, mixed_precision=mixed_precision, state_path=file)
    # once for all steps, and called once more than those: the trial
    assert (backend.graphs, backend.calls) == (1, 7)
    assert not [one for one in caplog.records if one.name.startswith("sdviz")]

    state = torch.load(file, weights_only=True)
    for keys in (state["model"], state["ema"], network.state_dict(), average.state_dict()):
        assert keys.keys() == expected
    assert not any("_orig_mod" in name for name, _ in network.named_modules())
    assert same(weights(average), weights(uncompiled))
    # the average is a plain network
    calls = backend.calls
    copy.deepcopy(average)(torch.rand(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2]))
    assert backend.calls == calls


def test_a_state_goes_from_one_kind_to_the_other(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, undisturbed, _ = train(8)
    kinds = {"eager": {}, "compiled": {"cpu": plain}}
    for kind, compilers in kinds.items():
        monkeypatch.setattr(training, "COMPILERS", compilers)
        train(5, state_path=tmp_path / f"{kind}.pt")
    for first, then in (("eager", "compiled"), ("compiled", "eager"), ("compiled", "compiled")):
        file = Path(shutil.copy(tmp_path / f"{first}.pt", tmp_path / "state.pt"))
        monkeypatch.setattr(training, "COMPILERS", kinds[then])
        _, average, _ = train(3, state_path=file)
        assert same(weights(average), weights(undisturbed))


@pytest.mark.parametrize(
    "backend",
    [broken, aot_autograd(fw_compiler=plain, bw_compiler=broken), "no such compiler"],
    ids=["forward", "backward", "unknown"],
)
def test_a_compiler_that_does_not_work_costs_one_line_and_nothing_else(
    train: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    backend: Backend | str,
) -> None:
    _, uncompiled, _ = train(4)
    monkeypatch.setitem(training.COMPILERS, "cpu", backend)
    with caplog.at_level(logging.WARNING):
        network, average, _ = train(4)
    assert same(weights(average), weights(uncompiled))
    (record,) = [one for one in caplog.records if one.name.startswith("sdviz")]
    message = record.getMessage()
    assert message.startswith("the U-Net is trained uncompiled, which is slower: ")
    assert "\n" not in message and "TORCH_LOGS" not in message
    assert (
        "no such compiler" in message if isinstance(backend, str) else "triton installation. Really" in message
    )
    # nothing of it stays with the network
    network(torch.rand(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2]))


def test_a_short_training_is_over_before_a_compiler_would_be(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = Counting()
    monkeypatch.setitem(training.COMPILERS, "cpu", backend)
    train(2, total_steps=COMPILE_FROM_STEPS - 1)
    assert backend.graphs == 0
    # what counts is what is left to do
    file = tmp_path / "state.pt"
    train(1, total_steps=COMPILE_FROM_STEPS, state_path=file)
    graphs = backend.graphs
    assert graphs > 0
    train(1, total_steps=COMPILE_FROM_STEPS, state_path=file)
    assert backend.graphs == graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixed_precision", ["no", "auto"])
def test_on_cuda_compiled_and_uncompiled_agree(
    train: Callable[..., Any],
    tiny_network: Callable[..., NoisePredictor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    mixed_precision: str,
) -> None:
    # a compiler drops other numbers
    unet = UNET.model_copy(update={"dropout": 0.0})
    options = {"mixed_precision": mixed_precision, "device": "cuda", "unet": unet}
    files = {kind: tmp_path / f"{kind}.pt" for kind in ("compiled", "eager")}
    reports = {}
    for kind, file in files.items():
        if kind == "eager":
            monkeypatch.setattr(training, "COMPILERS", {})
        _, average, reports[kind] = train(40, state_path=file, **options)
        assert all(p.device.type == "cpu" and torch.isfinite(p).all() for p in average.parameters())
    assert not [one for one in caplog.records if one.name.startswith("sdviz")]  # it was compiled
    assert len(reports["compiled"]) == 2
    for a, b in zip(reports["compiled"], reports["eager"], strict=True):
        assert a.loss == pytest.approx(b.loss, rel=0.02)
    for file in files.values():
        state = torch.load(file, weights_only=True)
        for part in ("model", "ema"):
            assert state[part].keys() == tiny_network(UNET).state_dict().keys()
    # and each goes on from the other's state
    train(2, state_path=files["compiled"], **options)
    monkeypatch.undo()
    train(2, state_path=files["eager"], **options)
