from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sdviz.config.nodes import OptimizerConfig, TrainingConfig
from sdviz.files import leftovers
from sdviz.nn.loop import (
    Execution,
    LoopReport,
    TrainingDiverged,
    TrainingStateError,
    cosine_rate,
    make_optimizer,
    read_state,
    run_steps,
    save_state,
    train_networks,
)
from sdviz.nn.randomness import step_generator
from tests.full_disk import largest_file
from tests.stopping import stop_before

pytestmark = pytest.mark.usefixtures("one_thread")

TOTAL = 12


class Training:
    """A small network with batch statistics, an optimizer, and steps drawn from their number alone."""

    def __init__(self, seed: int = 0, name: str = "adamw", width: int = 5) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 1))
        config = OptimizerConfig(name=name, learning_rate=0.05)  # type: ignore[arg-type]
        self.optimizer = make_optimizer(self.network.parameters(), config)
        self.steps: list[int] = []
        self.reports: list[LoopReport] = []
        self.poison: Callable[[int], float] = lambda step: 1.0

    def one_step(self, step: int, progress: float) -> torch.Tensor:
        self.steps.append(step)
        x = torch.randn(8, 3, generator=step_generator(0, step, "test"))
        loss = F.mse_loss(self.network(x), x.sum(1, keepdim=True)) * self.poison(step)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(
        self,
        state_path: Path | None = None,
        should_stop: Callable[[], bool] | None = None,
        total: int = TOTAL,
        save_every_sec: float = 1e9,
        after_step: Callable[[int], None] | None = None,
    ) -> bool:
        networks = {"network": self.network}
        config = TrainingConfig(total_steps=total, save_every_sec=save_every_sec)
        execution = Execution("cpu", state_path, self.reports.append, should_stop)
        return run_steps("thing", self.one_step, networks, self.optimizer, config, 8, execution, after_step)

    def weights(self) -> dict[str, torch.Tensor]:
        return {key: value.clone() for key, value in self.network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- resume -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_stopped_and_resumed_is_bit_for_bit_undisturbed(tmp_path: Path, name: str) -> None:
    undisturbed = Training(name=name)
    assert undisturbed.run()
    assert undisturbed.steps == list(range(TOTAL))
    path, done = tmp_path / "deep" / "state.pt", []
    for i, stop in enumerate((stop_before(3), stop_before(0), stop_before(4), None)):
        part = Training(seed=i, name=name)  # another network each time: what counts is in the state
        assert part.run(path, stop) == (stop is None)
        done.append(part.steps)
    assert done == [[0, 1, 2], [], [3, 4, 5, 6], [7, 8, 9, 10, 11]]
    assert same(part.weights(), undisturbed.weights())
    assert not leftovers(path.parent)


def test_killed_and_resumed_goes_on_from_the_last_save(tmp_path: Path) -> None:
    undisturbed = Training()
    undisturbed.run()
    path = tmp_path / "state.pt"

    def kill(step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    # after_step comes before the save: the 6th step is lost
    with pytest.raises(KeyboardInterrupt):
        Training().run(path, save_every_sec=1e-9, after_step=kill)
    again = Training(seed=5)
    assert again.run(path)
    assert again.steps == list(range(5, TOTAL))
    assert same(again.weights(), undisturbed.weights())


def test_without_a_path_nothing_is_saved_and_a_stop_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    training = Training()
    assert not training.run(should_stop=stop_before(2))
    assert training.steps == [0, 1]
    assert not list(tmp_path.iterdir())


def test_saves_come_by_time(tmp_path: Path) -> None:
    path, seen = tmp_path / "state.pt", []
    Training().run(path, after_step=lambda step: seen.append(path.exists()))
    assert not any(seen) and path.exists()
    path.unlink()
    Training().run(path, after_step=lambda step: seen.append(path.exists()), save_every_sec=1e-9)
    assert seen[TOTAL:] == [False] + [True] * (TOTAL - 1)
    # the state of a whole training leaves nothing to do
    done = Training(seed=3)
    assert done.run(path)
    assert done.steps == []


def test_after_step_counts_steps_done(tmp_path: Path) -> None:
    counted: list[int] = []
    Training().run(tmp_path / "state.pt", stop_before(4), after_step=counted.append)
    Training().run(tmp_path / "state.pt", total=6, after_step=counted.append)
    assert counted == [1, 2, 3, 4, 5, 6]


# --- reports ----------------------------------------------------------------------------------------


def test_reports_come_every_twenty_steps_and_at_the_end(tmp_path: Path) -> None:
    training = Training()
    losses: list[float] = []
    plain = training.one_step

    def one_step(step: int, progress: float) -> torch.Tensor:
        time.sleep(0.002)
        loss = plain(step, progress)
        losses.append(float(loss))
        return loss

    training.one_step = one_step  # type: ignore[method-assign]
    started = time.monotonic()
    training.run(total=50)
    spent = time.monotonic() - started
    assert [(r.step, r.total_steps) for r in training.reports] == [(20, 50), (40, 50), (50, 50)]
    for report, first in zip(training.reports, (0, 20, 40), strict=True):
        assert report.loss == pytest.approx(np.mean(losses[first : report.step]), rel=1e-5)
        assert 0 < report.images_per_sec < 8 / 0.002
    # all steps took about as long: half as much again after two thirds
    first, second, last = (r.eta_sec for r in training.reports)
    assert 30 * 0.002 < first < 30 * spent / 20
    assert 10 * 0.002 < second < 10 * spent / 40
    assert last == 0
    times = [8 * n / r.images_per_sec for n, r in zip((20, 20, 10), training.reports, strict=True)]
    assert sum(times) <= spent


def test_the_rate_and_the_time_left_are_of_this_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Training().run(path, stop_before(35), total=50)
    resumed = Training()
    started = time.monotonic()
    resumed.run(path, total=50)
    spent = time.monotonic() - started
    assert [r.step for r in resumed.reports] == [40, 50]
    # five steps are behind it and ten ahead
    assert 0 < resumed.reports[0].eta_sec < 10 * spent / 5
    assert resumed.reports[0].images_per_sec > 8 * 5 / spent


# --- what can go wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("save_every_sec", [1e-9, 1e9])
def test_a_loss_that_is_no_number_stops_it_and_the_last_good_state_stays(
    tmp_path: Path, value: float, save_every_sec: float
) -> None:
    undisturbed = Training()
    undisturbed.run()
    path = tmp_path / "state.pt"
    Training().run(path, stop_before(3))
    spoilt = Training()
    spoilt.poison = lambda step: value if step >= 6 else 1.0
    message = (
        r"the thing's loss or gradient became NaN or infinite by step \d+ of 12: try a learning rate below 0.05"
    )
    with pytest.raises(TrainingDiverged, match=message):
        spoilt.run(path, save_every_sec=save_every_sec)
    assert torch.load(path, weights_only=True)["step"] == (6 if save_every_sec < 1 else 3)
    again = Training()
    assert again.run(path)
    assert same(again.weights(), undisturbed.weights())


@pytest.mark.parametrize("end", ["save", "stop", "end"])
def test_weights_that_are_no_numbers_are_neither_saved_nor_returned(tmp_path: Path, end: str) -> None:
    path = tmp_path / "state.pt"
    training = Training()
    plain, last = training.one_step, TOTAL - 1 if end == "end" else 4

    def one_step(step: int, progress: float) -> torch.Tensor:
        loss = plain(step, progress)  # sound itself; what it does to the weights is not
        if step == last:
            with torch.no_grad():
                training.network[0].weight[0, 0] = math.inf
        return loss

    training.one_step = one_step  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match=rf"weights became NaN or infinite by step {last + 1} of 12"):
        training.run(
            path, stop_before(5) if end == "stop" else None, save_every_sec=1e-9 if end == "save" else 1e9
        )
    assert path.exists() == (end == "save")
    if path.exists():
        assert torch.load(path, weights_only=True)["step"] == 4


def test_a_spoilt_state_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    Training().run(path, stop_before(2))
    whole = path.read_bytes()
    for raw in (b"", b"text\n", whole[:-1], whole[: len(whole) // 2], np.random.default_rng(0).bytes(3000)):
        path.write_bytes(raw)
        with pytest.raises(TrainingStateError, match="remove it to start over") as refused:
            Training().run(path)
        assert str(refused.value).startswith(f"{path}: ")
        assert "\n" not in str(refused.value)
    good = {
        "step": 2,
        "elapsed_sec": 1.0,
        "network": Training().network.state_dict(),
        "optimizer": Training().optimizer.state_dict(),
    }
    foreign: list[object] = [
        [1, 2],
        torch.zeros(3),
        {},
        {key: value for key, value in good.items() if key != "optimizer"},
        good | {"network": Training(width=6).network.state_dict()},
        good | {"network": torch.zeros(3)},
        good | {"network": None},
        good | {"network": {}},
        good | {"optimizer": {}},
        good | {"optimizer": {"state": {}, "param_groups": []}},
        good | {"step": "many"},
        good | {"step": [2]},
    ]
    for state in foreign:
        torch.save(state, path)
        with pytest.raises(TrainingStateError, match="remove it to start over") as refused:
            Training().run(path)
        assert str(refused.value).startswith(f"{path}: ")
        assert "\n" not in str(refused.value)
    torch.save(good, path)
    assert Training().run(path)


def test_a_state_holds_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "was run"),))

    torch.save({"step": Evil(), "network": {}, "optimizer": {}}, tmp_path / "state.pt")
    with pytest.raises(TrainingStateError):
        Training().run(tmp_path / "state.pt")
    assert not (tmp_path / "was run").exists()


def test_a_full_disk_leaves_the_last_state_whole(tmp_path: Path) -> None:
    undisturbed = Training()
    undisturbed.run()
    path = tmp_path / "state.pt"
    Training().run(path, stop_before(2))
    whole = path.read_bytes()
    for size in (0, len(whole) // 3, len(whole) - 1):
        with (
            largest_file(size),
            pytest.raises(OSError, match="state.pt cannot be written: .*File too large") as full,
        ):
            Training().run(path, save_every_sec=1e-9)
        assert str(full.value).startswith(str(path))
        assert path.read_bytes() == whole
        assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    again = Training()
    assert again.run(path)
    assert same(again.weights(), undisturbed.weights())


def test_a_folder_that_cannot_be_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Training().run(tmp_path / "file" / "state.pt", stop_before(1))


def test_states_are_read_with_the_keys_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state.pt"
    save_state(path, {"step": 3, "x": torch.arange(3)})
    assert read_state(path, {"step"})["x"].tolist() == [0, 1, 2]
    with pytest.raises(TrainingStateError, match="no resume state"):
        read_state(path, {"step", "y"})


# --- rates, optimizers ------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0, 9])
def test_the_rate_rises_in_the_warm_up_and_falls_as_half_a_cosine(warmup: int) -> None:
    config = OptimizerConfig(learning_rate=0.2, warmup_steps=warmup)
    rates = [cosine_rate(step, 100, config) for step in range(100)]
    cosine = [0.1 * (1 + math.cos(math.pi * step / 100)) for step in range(100)]
    rise = [min(1.0, (step + 1) / (warmup + 1)) for step in range(100)]
    np.testing.assert_allclose(rates, np.multiply(cosine, rise), rtol=1e-12)
    assert rates[0] == pytest.approx(0.2 / (warmup + 1))
    assert rates.index(max(rates)) == warmup
    assert 0 < rates[-1] < 1e-4
    assert cosine_rate(100, 100, config) == pytest.approx(0, abs=1e-12)


def test_optimizers_are_what_their_configuration_says() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    adamw = make_optimizer(parameters, OptimizerConfig(learning_rate=0.3, weight_decay=0.2))
    assert type(adamw) is torch.optim.AdamW
    assert (adamw.defaults["lr"], adamw.defaults["weight_decay"]) == (0.3, 0.2)
    for momentum in (0.8, 0.0):
        sgd = make_optimizer(parameters, OptimizerConfig(name="sgd", learning_rate=0.4, momentum=momentum))
        assert type(sgd) is torch.optim.SGD
        assert (sgd.defaults["lr"], sgd.defaults["weight_decay"]) == (0.4, 1e-4)
        assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (momentum, momentum > 0)


@pytest.mark.parametrize("limit", [None, 0.5, 100.0])
def test_long_gradients_are_shortened_and_keep_their_direction(limit: float | None) -> None:
    network = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(network.weight)
    config = OptimizerConfig(name="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, max_grad_norm=limit)
    training = TrainingConfig(total_steps=1, optimizer=config)
    x = torch.tensor([3.0, 4.0])  # the gradient of the one weight row, of length 5
    train_networks("thing", {"n": network}, lambda step: network(x).sum(), training, 1, Execution("cpu"))
    length = 5.0 if limit is None else min(5.0, limit)
    np.testing.assert_allclose(-network.weight.detach().numpy(), [[0.6 * length, 0.8 * length]], rtol=1e-5)
