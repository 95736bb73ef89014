"""The training loop: resume, stop, report, save, and an error where the loss is NaN."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..config.nodes import OptimizerConfig, TrainingConfig
from ..files import replacing
from .device import resolve_device

REPORT_EVERY_STEPS = 20


class TrainingDiverged(RuntimeError):
    """The loss or the weights are no longer numbers."""


class TrainingStateError(ValueError):
    """A resume state that is cut, foreign or of another network; the message names the file."""


class Stateful(Protocol):
    """What a resume state keeps: networks and optimizers."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...  # noqa: ANN401, D102


@dataclass(frozen=True)
class LoopReport:
    """One line of progress.

    Attributes:
        step: Steps done, of `total_steps`.
        loss: Mean since the last report.
        images_per_sec: Since the last report.
        eta_sec: Seconds to the end at the mean rate of this process.
    """

    step: int
    total_steps: int
    loss: float
    images_per_sec: float
    eta_sec: float


def make_optimizer(parameters: Any, config: OptimizerConfig) -> torch.optim.Optimizer:  # noqa: ANN401
    """AdamW, or SGD with Nesterov's momentum."""
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters,
        config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def cosine_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Learning rate at a step: a linear rise over the warm-up, times half a cosine down to 0."""
    rise = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * rise * (1 + math.cos(math.pi * step / total_steps)) / 2


@dataclass(frozen=True)
class Execution:
    """Where a training computes and keeps its state, and who watches it.

    Attributes:
        device: "auto", "cpu", "cuda", ...
        state_path: The resume state; read first if it is there, removed by the caller at the end.
        on_report: Called every few steps.
        should_stop: Asked before every step; True saves the state and ends the training.
    """

    device: str = "auto"
    state_path: Path | None = None
    on_report: Callable[[LoopReport], None] | None = None
    should_stop: Callable[[], bool] | None = None

    @property
    def where(self) -> torch.device:
        """The device."""
        return resolve_device(self.device)


def train_networks(
    name: str,
    networks: Mapping[str, nn.Module],
    loss_at: Callable[[int], torch.Tensor],
    config: TrainingConfig,
    images_per_step: int,
    execution: Execution,
    after_step: Callable[[int], None] | None = None,
) -> bool:
    """Trains networks in place on one loss; they end on the CPU in eval mode.

    Other arguments and errors: see `run_steps`.

    Args:
        networks: By name; all parameters with `requires_grad` are trained.
        loss_at: The loss of a step, 0-based; all random numbers in it must come from that number.
    """
    for network in networks.values():
        network.to(execution.where).train()
    trained = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, config.optimizer)

    def one_step(step: int) -> torch.Tensor:
        loss = loss_at(step)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, config.total_steps, config.optimizer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    parts: dict[str, Stateful] = {**networks, "optimizer": optimizer}
    done = run_steps(name, one_step, parts, config, images_per_step, execution, after_step)
    for network in networks.values():
        network.to("cpu").eval()
    return done


def run_steps(
    name: str,
    one_step: Callable[[int], torch.Tensor],
    parts: Mapping[str, Stateful],
    config: TrainingConfig,
    images_per_step: int,
    execution: Execution,
    after_step: Callable[[int], None] | None = None,
) -> bool:
    """Runs the steps that are left; False if it was stopped before the last one.

    A resumed training gives the same bits as an undisturbed one (at equal thread count) if everything random
    in a step comes from its number.

    Args:
        name: Of the training, for errors.
        one_step: Does one step, 0-based, and returns its loss, a scalar, detached.
        parts: What changes in a step, by name: networks and optimizers.
        images_per_step: For the rate in reports.
        after_step: Called with the number of steps done, after each.

    Raises:
        TrainingStateError: The state file holds no state of these parts.
        TrainingDiverged: The loss or a weight became NaN or infinite; the last good state stays on disk.
        OSError: The state cannot be written; the last one stays.
    """
    total_steps, state_path = config.total_steps, execution.state_path
    first = _restore(state_path, parts) if state_path is not None else 0
    step = first
    losses: list[torch.Tensor] = []
    started = last_save = last_report = time.monotonic()

    def check_finite() -> float:
        mean = float(torch.stack(losses).mean()) if losses else 0.0
        if not math.isfinite(mean):
            raise TrainingDiverged(
                f"the {name}'s loss became {mean} by step {step} of {total_steps}: try a lower learning rate"
            )
        return mean

    def check_weights() -> None:
        # an infinite gradient makes the weights infinite one step before the loss
        for part in parts.values():
            if isinstance(part, nn.Module) and not _is_finite(part):
                raise TrainingDiverged(
                    f"the {name}'s weights became NaN or infinite by step {step} of {total_steps}:"
                    " try a lower learning rate"
                )

    def save() -> None:
        check_finite()
        check_weights()
        if state_path is not None:
            save_state(state_path, {"step": step} | {key: part.state_dict() for key, part in parts.items()})

    while step < total_steps:
        if execution.should_stop is not None and execution.should_stop():
            save()
            return False
        losses.append(one_step(step))
        step += 1
        if after_step is not None:
            after_step(step)
        now = time.monotonic()
        if step % REPORT_EVERY_STEPS == 0 or step == total_steps:
            mean = check_finite()
            if execution.on_report is not None:
                rate = len(losses) * images_per_step / max(1e-9, now - last_report)
                eta = (now - started) / (step - first) * (total_steps - step)
                execution.on_report(LoopReport(step, total_steps, mean, rate, eta))
            losses.clear()
            last_report = now
        if now - last_save >= config.save_every_sec:
            save()
            last_save = time.monotonic()
    check_weights()
    return True


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Replaces a resume state whole; OSError if it cannot be written, and the old one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as partial, partial.open("wb") as stream:
            torch.save(state, stream)
    except (OSError, RuntimeError) as error:
        # torch may raise an error of its own; the full disk is then its context
        reason = error if isinstance(error, OSError) else error.__context__ or error
        raise OSError(f"{path} cannot be written: {reason}") from error


def read_state(path: Path, keys: set[str]) -> dict[str, Any]:
    """A resume state with at least these keys, on the CPU; TrainingStateError if the file holds none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # reading damaged bytes as a pickle can raise any error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingStateError(
            f"{path}: cut short or no resume state; remove it to start over ({reason})"
        ) from error
    if not isinstance(state, dict) or not keys <= state.keys():
        raise TrainingStateError(f"{path}: no resume state; remove it to start over")
    return state


def _restore(path: Path, parts: Mapping[str, Stateful]) -> int:
    if not path.exists():
        return 0
    state = read_state(path, {"step", *parts})
    try:
        for key, part in parts.items():
            part.load_state_dict(state[key])
        return int(state["step"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingStateError(f"{path}: the state of another network; remove it to start over") from error


def _is_finite(network: nn.Module) -> bool:
    values = (v for v in network.state_dict().values() if v.is_floating_point())
    return all(bool(torch.isfinite(value).all()) for value in values)
