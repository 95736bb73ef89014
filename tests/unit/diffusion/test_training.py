from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F

from sdviz.config.nodes import DiffusionConfig, UNetConfig
from sdviz.diffusion import training
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.diffusion.training import (
    COMPILE_FROM_STEPS,
    make_accelerator,
    rate_factor,
    train_noise_predictor,
)
from sdviz.files import leftovers
from sdviz.nn.device import has_fast_bf16
from sdviz.nn.loop import Execution, LoopReport, TrainingDiverged, TrainingStateError
from sdviz.nn.pixels import to_tensor
from sdviz.nn.unet import NoisePredictor
from tests.full_disk import largest_file
from tests.stopping import stop_before

SCHEDULE = NoiseSchedule.linear(1000)
PLAIN = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=1)
DROPOUT = PLAIN.model_copy(update={"dropout": 0.2})
CONFIG = DiffusionConfig(
    batch_size=8,
    total_steps=12,
    learning_rate=1e-3,
    warmup_steps=4,
    cooldown=0.5,
    ema_decay=0.9,
    mixed_precision="no",
)


def settings(**changes: Any) -> DiffusionConfig:  # noqa: ANN401
    return DiffusionConfig(**(CONFIG.model_dump() | changes))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@dataclasses.dataclass
class Data:
    """12 images of 3 classes; class 0 is red, 1 green, 2 blue, and the left half darker than the right."""

    images: np.ndarray
    labels: np.ndarray


@pytest.fixture
def data() -> Data:
    labels = np.arange(12) % 3
    images = np.full((12, 8, 8, 3), 20, np.uint8)
    images[np.arange(12), :, :, labels] = 220
    images[:, :, :4] //= 2
    return Data(images, labels)


@pytest.fixture
def train(
    tiny_network: Callable[..., NoisePredictor], data: Data
) -> Callable[..., tuple[NoisePredictor, bool]]:
    def run(
        model: NoisePredictor | None = None,
        config: DiffusionConfig = CONFIG,
        **options: Any,  # noqa: ANN401
    ) -> tuple[NoisePredictor, bool]:
        model = tiny_network() if model is None else model
        options = {"device": "cpu", "images": data.images, "labels": data.labels} | options
        images, labels = options.pop("images"), options.pop("labels")
        return train_noise_predictor(model, images, labels, SCHEDULE, config, Execution(**options))

    return run


class Recorder(NoisePredictor):
    """A real network that keeps what it was asked and what it answered."""

    def __init__(self, network: NoisePredictor) -> None:
        super().__init__(network.unet, network.pixel_unshuffle)
        self.calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        eps = super().forward(x, timesteps, class_labels)
        self.calls.append((x, timesteps, class_labels, eps.detach()))
        return eps

    def asked(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All x_t, timesteps and class labels of the run."""
        x, t, c, _ = zip(*self.calls, strict=True)
        return torch.cat(x), torch.cat(t), torch.cat(c)


# --- Eq. 1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_snr", [None, 5.0])
def test_the_loss_is_eq_1_weighted(
    min_snr: float | None,
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
) -> None:
    image = np.tile(np.linspace(0, 255, 8).astype(np.uint8)[:, None, None], (1, 1, 8, 3))
    recorder, reports = Recorder(tiny_network()), []
    config = settings(total_steps=20, batch_size=16, min_snr=min_snr)
    train(recorder, config, images=image, labels=np.array([1]), on_report=reports.append)
    # there is one image and it is its own mirror image, so the noise in each x_t is known
    losses, weighted = [], []
    for x_t, t, _, eps in recorder.calls:
        a = SCHEDULE.alphas_cumprod[t].float()
        each = a[:, None, None, None]
        noise = (x_t - each.sqrt() * to_tensor(image)) / (1 - each).sqrt()
        errors = F.mse_loss(eps, noise, reduction="none").mean((1, 2, 3))
        losses.append(errors.mean().item())
        weighted.append((errors * np.minimum(1, 5 * (1 - a) / a)).mean().item())
        assert noise.mean().abs() < 0.1
        assert noise.std().item() == pytest.approx(1, abs=0.1)
    assert [r.step for r in reports] == [20]
    assert np.mean(weighted) < 0.95 * np.mean(losses)
    assert reports[0].loss == pytest.approx(np.mean(weighted if min_snr else losses), rel=1e-3)


def test_the_loss_falls(
    train: Callable[..., tuple[NoisePredictor, bool]], tiny_network: Callable[..., NoisePredictor], data: Data
) -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, labels = to_tensor(data.images).repeat(20, 1, 1, 1), torch.tensor(data.labels).repeat(20)
    s = torch.randint(1, 1001, (240,), generator=generator)
    noise = torch.randn(x_0.shape, generator=generator)
    x_s = SCHEDULE.add_noise(x_0, noise, s)

    @torch.no_grad()
    def loss(model: NoisePredictor, class_labels: torch.Tensor) -> float:
        return F.mse_loss(model(x_s, s - 1, class_labels), noise).item()

    model = tiny_network()
    before = loss(model, labels)
    trained, complete = train(
        model, settings(total_steps=100, learning_rate=1e-2, ema_decay=0.9, warmup_steps=20)
    )
    assert complete
    assert before > 0.9
    assert loss(trained, labels) < 0.5 * before
    # it heeds the class: the right one tells more than the wrong one, and the null token lies between them
    null = torch.full_like(labels, trained.null_label)
    assert loss(trained, labels) < loss(trained, null) < loss(trained, (labels + 1) % 3)


def test_images_go_with_their_labels_and_half_are_mirrored(
    train: Callable[..., tuple[NoisePredictor, bool]], tiny_network: Callable[..., NoisePredictor]
) -> None:
    for random_flip in (True, False):
        recorder = Recorder(tiny_network())
        # only t = 0, where x_t is the image with noise of 0.01
        config = settings(max_train_timestep=1, random_flip=random_flip, p_uncond=0.0, batch_size=32)
        train(recorder, config)
        x, t, c = recorder.asked()
        assert (t == 0).all()
        assert (x.mean((2, 3)).argmax(1) == c).all()
        brightness = x.mean(1)
        mirrored = (brightness[:, :, :4].mean((1, 2)) > brightness[:, :, 4:].mean((1, 2))).float().mean().item()
        assert mirrored == (pytest.approx(0.5, abs=0.1) if random_flip else 0)
        assert set(torch.bincount(c, minlength=3).tolist()) != {0}
        assert x.amin() > -1.1
        assert x.amax() < 1.0


@pytest.mark.parametrize("p_uncond", [0.0, 0.1, 0.5, 1.0])
def test_the_condition_is_dropped_with_p_uncond(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    p_uncond: float,
) -> None:
    recorder = Recorder(tiny_network())
    train(recorder, settings(p_uncond=p_uncond, batch_size=64))
    _, _, c = recorder.asked()
    n = len(c)
    assert n == 12 * 64
    dropped = (c == recorder.null_label).float().mean().item()
    assert dropped == pytest.approx(p_uncond, abs=3.5 * (p_uncond * (1 - p_uncond) / n) ** 0.5)
    # and whether it is dropped has nothing to do with the class
    if p_uncond < 1:
        assert set(c.tolist()) == {0, 1, 2} | ({3} if p_uncond else set())


@pytest.mark.parametrize("max_train_timestep", [None, 400, 7])
def test_timesteps_are_uniform_below_the_largest_one_trained(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    max_train_timestep: int | None,
) -> None:
    recorder = Recorder(tiny_network())
    train(recorder, settings(max_train_timestep=max_train_timestep, batch_size=64))
    _, t, _ = recorder.asked()
    top = max_train_timestep or 1000
    assert 0 <= t.min() <= 0.02 * top
    assert 0.98 * top - 1 <= t.max() < top
    n = len(t)
    assert t.double().mean().item() == pytest.approx((top - 1) / 2, abs=3.5 * top / (12 * n) ** 0.5)


# --- the optimiser ----------------------------------------------------------------------------------


def test_rate_factor_by_hand() -> None:
    config = settings(warmup_steps=4, cooldown=0.5)
    assert [rate_factor(step, 0.0, config) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [rate_factor(100, p, config) for p in (0.0, 0.5, 0.75, 1.0, 1.2)] == [1, 1, 0.5, 0, 0]
    assert rate_factor(100, 1.0, settings(cooldown=0.0)) == 1
    assert rate_factor(0, 0.0, settings(warmup_steps=0)) == 1


@pytest.mark.parametrize("ema_decay", [0.15, 0.9])
def test_the_returned_network_is_the_average_over_training(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    ema_decay: float,
) -> None:
    model = tiny_network()
    average = weights(model)
    snapshots: list[dict[str, torch.Tensor]] = []

    def watch() -> bool:
        snapshots.append(weights(model))
        return False

    ema, _ = train(model, settings(ema_decay=ema_decay), should_stop=watch)
    assert same(snapshots[0], average)
    for step, after in enumerate([*snapshots[1:], weights(model)]):
        # warmed up as (1+step)/(10+step), so that the random start is soon forgotten
        decay = min(ema_decay, (1 + step) / (10 + step))
        average = {k: decay * average[k] + (1 - decay) * after[k] for k in average}
    for name, value in ema.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=0, atol=1e-6)
    assert not same(weights(ema), weights(model))
    assert not ema.training
    assert not any(p.requires_grad for p in ema.parameters())


def test_without_averaging_it_is_the_last_network(
    train: Callable[..., tuple[NoisePredictor, bool]], tiny_network: Callable[..., NoisePredictor]
) -> None:
    model = tiny_network()
    ema, _ = train(model, settings(ema_decay=0.0))
    assert same(weights(ema), weights(model))
    assert not same(weights(ema), weights(tiny_network()))


def test_gradients_are_clipped(
    train: Callable[..., tuple[NoisePredictor, bool]], tiny_network: Callable[..., NoisePredictor]
) -> None:
    # so short a gradient vanishes beside Adam's epsilon, and the weights stay
    ema, _ = train(config=settings(max_grad_norm=1e-15, ema_decay=0.0))
    before = weights(tiny_network())
    assert max((p - before[name]).abs().max().item() for name, p in weights(ema).items()) < 1e-6


def test_only_a_dropped_condition_trains_the_null_row(
    train: Callable[..., tuple[NoisePredictor, bool]], tiny_network: Callable[..., NoisePredictor]
) -> None:
    name = "unet.class_embedding.weight"
    before = weights(tiny_network())[name]
    for p_uncond, null_moves, classes_move in ((0.0, False, True), (1.0, True, False)):
        ema, _ = train(config=settings(p_uncond=p_uncond))
        after = weights(ema)[name]
        assert torch.equal(after[3], before[3]) != null_moves
        assert torch.equal(after[:3], before[:3]) != classes_move


# --- reports ----------------------------------------------------------------------------------------


def test_reports_every_twenty_steps_and_at_the_end(train: Callable[..., tuple[NoisePredictor, bool]]) -> None:
    reports: list[LoopReport] = []
    train(config=settings(total_steps=45, warmup_steps=0), on_report=reports.append)
    assert [r.step for r in reports] == [20, 40, 45]
    assert [r.progress for r in reports] == pytest.approx([20 / 45, 40 / 45, 1])
    # flat to the middle, then down to nothing
    rates = [1e-3 * rate_factor(r.step - 1, (r.step - 1) / 45, settings(warmup_steps=0)) for r in reports]
    assert [r.learning_rate for r in reports] == pytest.approx(rates)
    assert rates[0] == 1e-3 > rates[1] > rates[2] > 0
    assert all(r.total_steps == 45 and r.loss > 0 and r.images_per_sec > 0 for r in reports)
    seconds = [r.elapsed_sec for r in reports]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


# --- determinism, stop and resume -------------------------------------------------------------------


@pytest.mark.parametrize("unet", [PLAIN, DROPOUT], ids=["plain", "dropout"])
def test_the_same_seed_gives_the_same_network(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    unet: UNetConfig,
) -> None:
    first, complete = train(tiny_network(unet))
    assert complete
    torch.manual_seed(99)
    torch.rand(5)
    again, _ = train(tiny_network(unet))
    assert same(weights(first), weights(again))
    other, _ = train(tiny_network(unet), settings(seed=1))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("unet", [PLAIN, DROPOUT], ids=["plain", "dropout"])
def test_stopped_and_resumed_is_bit_for_bit_undisturbed(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
    unet: UNetConfig,
) -> None:
    undisturbed_model = tiny_network(unet)
    undisturbed, _ = train(undisturbed_model, state_path=tmp_path / "undisturbed.pt")

    state_path = tmp_path / "state.pt"
    steps = []
    for stop in (stop_before(3), stop_before(0), stop_before(4), None):
        # another network each time: what counts is in the state
        model = tiny_network(unet, seed=len(steps) + 5) if steps else tiny_network(unet)
        resumed, complete = train(model, state_path=state_path, should_stop=stop)
        steps.append(torch.load(state_path, weights_only=True)["step"])
        assert complete == (stop is None)
    assert steps == [3, 3, 7, 12]
    assert same(weights(resumed), weights(undisturbed))
    assert same(weights(model), weights(undisturbed_model))


def test_killed_and_resumed_is_bit_for_bit_undisturbed(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
) -> None:
    config = settings(save_every_sec=1e-9)
    undisturbed, _ = train(tiny_network(DROPOUT), config)
    state_path = tmp_path / "states" / "state.pt"

    def killed() -> bool:
        if state_path.exists() and torch.load(state_path, weights_only=True)["step"] == 5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(tiny_network(DROPOUT), config, state_path=state_path, should_stop=killed)
    assert torch.load(state_path, weights_only=True)["step"] == 5
    resumed, complete = train(tiny_network(DROPOUT, seed=5), config, state_path=state_path)
    assert complete
    assert same(weights(resumed), weights(undisturbed))


def test_a_complete_training_is_not_trained_further(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
) -> None:
    first, _ = train(state_path=tmp_path / "state.pt")
    recorder = Recorder(tiny_network(seed=5))
    again, complete = train(recorder, state_path=tmp_path / "state.pt")
    assert complete
    assert recorder.calls == []
    assert same(weights(first), weights(again))


def test_states_of_this_layout_stay_loadable(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
) -> None:
    train(state_path=tmp_path / "state.pt", should_stop=stop_before(3))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state.keys() == {"model", "ema", "optimizer", "step", "elapsed_sec"}
    assert state["model"].keys() == state["ema"].keys() == tiny_network().state_dict().keys()
    assert not same(state["model"], state["ema"])
    assert state["elapsed_sec"] > 0


def test_the_time_limit_ends_it_cooled_down(
    train: Callable[..., tuple[NoisePredictor, bool]], tmp_path: Path
) -> None:
    reports: list[LoopReport] = []
    config = settings(total_steps=10**6, time_limit_sec=1.5, cooldown=1.0, warmup_steps=0)
    started = time.monotonic()
    _, complete = train(config=config, state_path=tmp_path / "state.pt", on_report=reports.append)
    assert complete
    assert 1.5 <= time.monotonic() - started < 30
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert 1 <= state["step"] < 10**5
    assert state["elapsed_sec"] >= 1.5
    for report in reports:
        assert report.learning_rate == pytest.approx(1e-3 * (1 - report.progress), rel=0.05, abs=1e-4)
    # the time is that of all parts together: nothing is left
    again, complete = train(config=config, state_path=tmp_path / "state.pt")
    assert complete
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == state["step"]
    assert same(weights(again), state["ema"])


# --- what can go wrong ------------------------------------------------------------------------------


class Poisoned(NoisePredictor):
    """A real network that breaks after so many calls."""

    def __init__(self, network: NoisePredictor, sound_calls: int, only_the_gradient: bool) -> None:
        super().__init__(network.unet, network.pixel_unshuffle)
        self.sound_calls, self.only_the_gradient, self.calls = sound_calls, only_the_gradient, 0

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        eps = super().forward(x, timesteps, class_labels)
        self.calls += 1
        if self.calls <= self.sound_calls:
            return eps
        # sqrt(0) is 0, and its slope infinite
        return eps + (0 * eps).sqrt() if self.only_the_gradient else eps / 0


@pytest.mark.parametrize("only_the_gradient", [False, True])
@pytest.mark.parametrize("save_every_sec", [1e-9, 1e9])
def test_nan_stops_it_and_the_last_good_state_stays(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
    only_the_gradient: bool,
    save_every_sec: float,
) -> None:
    state_path = tmp_path / "state.pt"
    config = settings(save_every_sec=save_every_sec)
    undisturbed, _ = train(config=config)
    train(config=config, state_path=state_path, should_stop=stop_before(2))
    model = Poisoned(tiny_network(), 3, only_the_gradient)
    with pytest.raises(TrainingDiverged, match=r"NaN or infinite by step \d+ of 12: try a learning rate below"):
        train(model, config, state_path=state_path)
    state = torch.load(state_path, weights_only=True)
    assert state["step"] == (5 if save_every_sec < 1 else 2)
    assert all(torch.isfinite(p).all() for part in ("model", "ema") for p in state[part].values())
    resumed, complete = train(tiny_network(seed=5), config, state_path=state_path)
    assert complete
    assert same(weights(resumed), weights(undisturbed))


@pytest.mark.parametrize("end", ["stop", "time"])
def test_a_spoilt_network_is_neither_saved_nor_returned_at_an_early_end(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    model = Poisoned(tiny_network(), 2, only_the_gradient=True)
    # a second a step, on a machine of any speed
    monkeypatch.setattr("sdviz.nn.loop.time", SimpleNamespace(monotonic=lambda: float(model.calls)))
    config = settings(total_steps=10**6, time_limit_sec=2.5 if end == "time" else None)
    stop = stop_before(3) if end == "stop" else None
    with pytest.raises(TrainingDiverged):
        train(model, config, state_path=tmp_path / "state.pt", should_stop=stop)
    assert not (tmp_path / "state.pt").exists()


def test_a_spoilt_state_is_refused_by_name(
    train: Callable[..., tuple[NoisePredictor, bool]],
    tiny_network: Callable[..., NoisePredictor],
    tmp_path: Path,
) -> None:
    file = tmp_path / "state.pt"
    train(state_path=file, should_stop=stop_before(1))
    whole = file.read_bytes()
    spoilt = {
        "cut": whole[: len(whole) // 2],
        "cut at the end": whole[:-1],
        "empty": b"",
        "text": b"not a state at all\n",
        "noise": np.random.default_rng(0).bytes(5000),
    }
    for name, raw in spoilt.items():
        file.write_bytes(raw)
        with pytest.raises(TrainingStateError, match="remove it to start over") as refused:
            train(state_path=file)
        assert str(refused.value).startswith(f"{file}: "), name
        assert "\n" not in str(refused.value), name
    state: object
    for state in ({"step": 3}, [1, 2], torch.zeros(3)):
        torch.save(state, file)
        with pytest.raises(TrainingStateError, match="no resume state") as refused:
            train(state_path=file)
        assert str(file) in str(refused.value)
    file.write_bytes(whole)
    other = UNetConfig(channels=(8, 16), layers_per_block=1, pixel_unshuffle=1)
    with pytest.raises(TrainingStateError, match="the state of another network") as refused:
        train(tiny_network(other), state_path=file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    train(state_path=file)


def test_a_state_holds_no_code(train: Callable[..., tuple[NoisePredictor, bool]], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "was run"),))

    torch.save({"model": Evil()}, tmp_path / "state.pt")
    with pytest.raises(TrainingStateError):
        train(state_path=tmp_path / "state.pt")
    assert not (tmp_path / "was run").exists()


def test_a_full_disk_leaves_the_last_state_whole(
    train: Callable[..., tuple[NoisePredictor, bool]], tmp_path: Path
) -> None:
    undisturbed, _ = train()
    file = tmp_path / "state.pt"
    train(state_path=file, should_stop=stop_before(2))
    whole = file.read_bytes()
    with (
        largest_file(len(whole) // 3),
        pytest.raises(OSError, match="cannot be written: .*File too large") as full,
    ):
        train(state_path=file, config=settings(save_every_sec=1e-9))
    assert str(file) in str(full.value)
    assert file.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    # what a killed process left half written stands in nobody's way
    (tmp_path / f".state.{'0' * 32}.partial.pt").write_bytes(whole[:100])
    resumed, complete = train(state_path=file)
    assert complete
    assert same(weights(resumed), weights(undisturbed))
    assert [p.name for p in tmp_path.iterdir() if p not in leftovers(tmp_path)] == ["state.pt"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 11 + [3], r"must lie in 0\.\.2, not 0\.\.3"),
        ([0] * 11 + [-1], r"must lie in 0\.\.2, not -1\.\.0"),
        ([0] * 11, r"shape \(11,\), but there are 12 images"),
    ],
)
def test_refuses_labels_that_do_not_fit(
    train: Callable[..., tuple[NoisePredictor, bool]], labels: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(labels=np.array(labels))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "no images"),
        (np.zeros((12, 8, 8, 3), np.float32), r"must be uint8 \(N,H,W,3\), not float32"),
        (np.zeros((12, 3, 8, 8), np.uint8), r"must be uint8 \(N,H,W,3\), not uint8 \(12, 3, 8, 8\)"),
    ],
)
def test_refuses_images_that_do_not_fit(
    train: Callable[..., tuple[NoisePredictor, bool]], images: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(images=images)


def test_refuses_timesteps_that_the_schedule_lacks(
    tiny_network: Callable[..., NoisePredictor], data: Data
) -> None:
    with pytest.raises(ValueError, match=r"max_train_timestep 400 is outside 1\.\.100"):
        train_noise_predictor(
            tiny_network(),
            data.images,
            data.labels,
            NoiseSchedule.linear(100),
            settings(max_train_timestep=400),
            Execution("cpu"),
        )


# --- precision and devices --------------------------------------------------------------------------


def test_auto_is_bf16_only_where_the_device_computes_in_it() -> None:
    fast = has_fast_bf16(torch.device("cpu"))
    assert make_accelerator("cpu", "auto").mixed_precision == ("bf16" if fast else "no")
    # each call starts afresh, whatever the process did before
    assert make_accelerator("cpu", "bf16").mixed_precision == "bf16"
    assert make_accelerator("cpu", "no").mixed_precision == "no"
    assert make_accelerator("cpu", "no").device.type == "cpu"


def test_bf16_trains_too_and_keeps_its_weights_in_float32(
    train: Callable[..., tuple[NoisePredictor, bool]], tiny_network: Callable[..., NoisePredictor]
) -> None:
    half, _ = train(config=settings(mixed_precision="bf16", learning_rate=5e-3))
    full, _ = train(config=settings(learning_rate=5e-3))
    assert not same(weights(half), weights(full))
    assert all(p.dtype == torch.float32 for p in half.parameters())
    # the average is a plain network, without the training's precision around it
    x, t, c = torch.rand(3, 3, 8, 8), torch.tensor([5, 300, 900]), torch.tensor([0, 1, 2])
    before, a, b = (network(x, t, c).detach() for network in (tiny_network(), half, full))
    assert a.dtype == torch.float32
    assert (a - b).norm() < 0.3 * (b - before).norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixed_precision", ["no", "auto"])
def test_trains_on_cuda_and_resumes_there(
    train: Callable[..., tuple[NoisePredictor, bool]], tmp_path: Path, mixed_precision: str
) -> None:
    config = settings(total_steps=40, mixed_precision=mixed_precision)
    reports: list[LoopReport] = []
    whole, _ = train(config=config, device="cuda", on_report=reports.append)
    assert reports[-1].loss < 1.5
    assert all(p.device.type == "cpu" and torch.isfinite(p).all() for p in whole.parameters())
    file = tmp_path / "state.pt"
    train(config=config, device="cuda", state_path=file, should_stop=stop_before(15))
    resumed, complete = train(config=config, device="cuda", state_path=file)
    assert complete
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


UNSHUFFLED = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=2, dropout=0.1)
LONG = DiffusionConfig(
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
    """A compiler that changes nothing, and counts graphs and calls of them."""

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


def unchanged(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    return graph.forward


@pytest.fixture
def train_part(
    tiny_network: Callable[..., NoisePredictor], tiny_images: Callable[..., np.ndarray]
) -> Callable[..., tuple[NoisePredictor, NoisePredictor, list[LoopReport]]]:
    """Trains a few steps of a long training; returns the network, its average and the reports."""

    def run(
        n_steps: int,
        device: str = "cpu",
        state_path: Path | None = None,
        unet: UNetConfig = UNSHUFFLED,
        **changes: Any,  # noqa: ANN401
    ) -> tuple[NoisePredictor, NoisePredictor, list[LoopReport]]:
        network = tiny_network(unet)
        asked, reports = iter(range(10**6)), list[LoopReport]()
        average, complete = train_noise_predictor(
            network,
            tiny_images(12),
            LABELS,
            SCHEDULE,
            DiffusionConfig(**(LONG.model_dump() | changes)),
            Execution(device, state_path, reports.append, lambda: next(asked) >= n_steps),
        )
        assert not complete
        return network, average, reports

    return run


def test_compiled_for_cuda_only(
    train_part: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def never(*args: object, **options: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(torch, "compile", never)
    train_part(2)
    assert not [one for one in caplog.records if one.name.startswith("sdviz")]
    assert training.COMPILERS == {"cuda": "inductor"}


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_compiled_it_trains_the_same_network_under_the_same_names(
    train_part: Callable[..., Any],
    tiny_network: Callable[..., NoisePredictor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    mixed_precision: str,
) -> None:
    expected = tiny_network(UNSHUFFLED).state_dict().keys()
    _, uncompiled, _ = train_part(6, mixed_precision=mixed_precision)
    backend = Counting()
    monkeypatch.setitem(training.COMPILERS, "cpu", backend)
    file = tmp_path / "state.pt"
    network, average, _ = train_part(6, mixed_precision=mixed_precision, state_path=file)
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


def test_compiled_and_eager_trainings_go_on_from_each_others_state(
    train_part: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, undisturbed, _ = train_part(8)
    kinds = {"eager": {}, "compiled": {"cpu": unchanged}}
    for kind, compilers in kinds.items():
        monkeypatch.setattr(training, "COMPILERS", compilers)
        train_part(5, state_path=tmp_path / f"{kind}.pt")
    for first, then in (("eager", "compiled"), ("compiled", "eager"), ("compiled", "compiled")):
        file = Path(shutil.copy(tmp_path / f"{first}.pt", tmp_path / "state.pt"))
        monkeypatch.setattr(training, "COMPILERS", kinds[then])
        _, average, _ = train_part(3, state_path=file)
        assert same(weights(average), weights(undisturbed))


@pytest.mark.parametrize(
    "backend",
    [broken, aot_autograd(fw_compiler=unchanged, bw_compiler=broken), "no such compiler"],
    ids=["forward", "backward", "unknown"],
)
def test_compiled_in_vain_costs_one_line_and_nothing_else(
    train_part: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    backend: Backend | str,
) -> None:
    _, uncompiled, _ = train_part(4)
    monkeypatch.setitem(training.COMPILERS, "cpu", backend)
    with caplog.at_level(logging.WARNING):
        network, average, _ = train_part(4)
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


def test_compiled_only_where_many_steps_are_left(
    train_part: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = Counting()
    monkeypatch.setitem(training.COMPILERS, "cpu", backend)
    train_part(2, total_steps=COMPILE_FROM_STEPS - 1)
    assert backend.graphs == 0
    # what counts is what is left to do
    file = tmp_path / "state.pt"
    train_part(1, total_steps=COMPILE_FROM_STEPS, state_path=file)
    graphs = backend.graphs
    assert graphs > 0
    train_part(1, total_steps=COMPILE_FROM_STEPS, state_path=file)
    assert backend.graphs == graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixed_precision", ["no", "auto"])
def test_compiled_and_uncompiled_agree_on_cuda(
    train_part: Callable[..., Any],
    tiny_network: Callable[..., NoisePredictor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    mixed_precision: str,
) -> None:
    # a compiler drops other numbers
    unet = UNSHUFFLED.model_copy(update={"dropout": 0.0})
    options = {"mixed_precision": mixed_precision, "device": "cuda", "unet": unet}
    files = {kind: tmp_path / f"{kind}.pt" for kind in ("compiled", "eager")}
    reports = {}
    for kind, file in files.items():
        if kind == "eager":
            monkeypatch.setattr(training, "COMPILERS", {})
        _, average, reports[kind] = train_part(40, state_path=file, **options)
        assert all(p.device.type == "cpu" and torch.isfinite(p).all() for p in average.parameters())
    assert not [one for one in caplog.records if one.name.startswith("sdviz")]  # it was compiled
    assert len(reports["compiled"]) == 2
    for a, b in zip(reports["compiled"], reports["eager"], strict=True):
        assert a.loss == pytest.approx(b.loss, rel=0.02)
    for file in files.values():
        state = torch.load(file, weights_only=True)
        for part in ("model", "ema"):
            assert state[part].keys() == tiny_network(UNSHUFFLED).state_dict().keys()
    # and each goes on from the other's state
    train_part(2, state_path=files["compiled"], **options)
    monkeypatch.undo()
    train_part(2, state_path=files["eager"], **options)
