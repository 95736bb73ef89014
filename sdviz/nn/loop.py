"""The training loop: resume, stop, report, save, and an error where the loss is NaN."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..config.nodes import DiffusionConfig, OptimizerConfig, TrainingConfig
from ..files import replacing
from ..text import LineError
from .device import resolve_device

if TYPE_CHECKING:
    from accelerate import Accelerator

REPORT_EVERY_STEPS = 20


class TrainingDiverged(RuntimeError):
    """The loss or the weights are no longer numbers."""


class TrainingStateError(LineError):
    """A resume state that is damaged or of another network; the message names the file."""


@dataclass(frozen=True)
class LoopReport:
    """One line of progress.

    Attributes:
        step: Steps done, of `total_steps`.
        loss: Mean since the last report.
        learning_rate: Of the last step.
        images_per_sec: Since the last report.
        elapsed_sec: Training time, earlier interrupted parts included.
        progress: 0..1, by steps or by the time limit, whichever is further.
        eta_sec: Seconds to the end at the mean rate of this process.
    """

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    images_per_sec: float
    elapsed_sec: float
    progress: float
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
    """Where a training runs and keeps its state, and how it reports and stops.

    Attributes:
        device: "auto", "cpu", "cuda", ...
        state_path: The resume state; read first if it exists, removed by the caller at the end.
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

    def one_step(step: int, progress: float) -> torch.Tensor:
        loss = loss_at(step)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, config.total_steps, config.optimizer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.optimizer.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(trained, config.optimizer.max_grad_norm)
        optimizer.step()
        return loss.detach()

    done = run_steps(name, one_step, networks, optimizer, config, images_per_step, execution, after_step)
    for network in networks.values():
        network.to("cpu").eval()
    return done


def run_steps(
    name: str,
    one_step: Callable[[int, float], torch.Tensor],
    networks: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig | DiffusionConfig,
    images_per_step: int,
    execution: Execution,
    after_step: Callable[[int], None] | None = None,
    *,
    before_steps: Callable[[int], None] | None = None,
    time_limit_sec: float | None = None,
    accelerator: Accelerator | None = None,
) -> bool:
    """Runs the steps that are left and saves the state; False if it was stopped before the last one.

    A resumed training gives the same bits as an undisturbed one if everything random in a step comes from its
    number (on the CPU, at equal thread count, without a time limit).

    Args:
        name: Of the training, for errors.
        one_step: Does one step, 0-based, and returns its loss, a detached scalar. Its second argument is the
            share of the training that is done, 0..1, by steps or by the time limit.
        networks: All that change in a step, by name.
        config: Its `total_steps` and `save_every_sec` count here.
        images_per_step: For the rate in reports.
        after_step: Called with the number of steps done, after each.
        before_steps: Called once with the number of the first step to do; its time counts as training time.
        time_limit_sec: Ends the training when this time is over.
        accelerator: Of the processes that share the training: the main one's clock and `should_stop` count for
            all, and it alone reports and saves.

    Raises:
        TrainingStateError: The state file holds no state of these networks.
        TrainingDiverged: The loss or a weight became NaN or infinite; the last good state stays on disk.
        OSError: The state cannot be written; the last one stays.
    """
    total_steps, state_path = config.total_steps, execution.state_path
    is_main = accelerator is None or accelerator.is_main_process
    parts: dict[str, Any] = {**networks, "optimizer": optimizer}
    first, earlier_sec = _restore(state_path, parts) if state_path is not None else (0, 0.0)
    step = first
    losses: list[torch.Tensor] = []
    started = time.monotonic()

    def elapsed_sec() -> float:
        return earlier_sec + time.monotonic() - started

    def stop_and_elapsed() -> tuple[bool, float]:
        """Whether to stop, and the training time; all processes take the main one's, or some would wait."""
        stop = is_main and execution.should_stop is not None and execution.should_stop()
        elapsed = elapsed_sec()
        if accelerator is None or accelerator.num_processes == 1:
            return stop, elapsed
        from accelerate.utils import broadcast

        answer = broadcast(torch.tensor([float(stop), elapsed], device=accelerator.device))
        return bool(answer[0]), float(answer[1])

    def progress_at(elapsed: float) -> float:
        return max(step / total_steps, elapsed / (time_limit_sec or math.inf))

    def check(what: str, is_finite: bool) -> None:
        if not is_finite:
            raise TrainingDiverged(
                f"the {name}'s {what} became NaN or infinite by step {step} of {total_steps}:"
                f" try a learning rate below {optimizer.defaults['lr']:g}"
            )

    def mean_loss() -> float:
        mean = float(torch.stack(losses).mean()) if losses else 0.0
        check("loss or gradient", math.isfinite(mean))
        return mean

    def save() -> None:
        mean_loss()
        # an infinite gradient makes the weights infinite one step before the loss
        check("weights", all(map(_is_finite, networks.values())))
        if state_path is not None and is_main:
            state = {key: part.state_dict() for key, part in parts.items()}
            save_state(
                state_path, {"step": step, "elapsed_sec": earlier_sec + time.monotonic() - started} | state
            )

    if before_steps is not None:
        before_steps(first)
    first_progress = progress_at(earlier_sec)
    last_save = last_report = time.monotonic()
    while step < total_steps:
        stop, elapsed = stop_and_elapsed()
        if time_limit_sec is not None and elapsed >= time_limit_sec:
            break
        if stop:
            save()
            return False
        progress = progress_at(elapsed)
        losses.append(one_step(step, progress))
        step += 1
        if after_step is not None:
            after_step(step)
        now = time.monotonic()
        if step % REPORT_EVERY_STEPS == 0 or step == total_steps:
            loss = mean_loss()
            if execution.on_report is not None and is_main:
                rate = float(optimizer.param_groups[0]["lr"])
                speed = len(losses) * images_per_step / max(1e-9, now - last_report)
                progress = max(progress, step / total_steps)
                eta = (now - started) * (1 - progress) / (progress - first_progress)
                seconds = earlier_sec + now - started
                execution.on_report(LoopReport(step, total_steps, loss, rate, speed, seconds, progress, eta))
            losses.clear()
            last_report = now
        if now - last_save >= config.save_every_sec:
            save()
            last_save = time.monotonic()
    save()
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


def _restore(path: Path, parts: Mapping[str, Any]) -> tuple[int, float]:
    """Puts a state into networks and optimizer; its step and its training time in seconds, 0 without a file."""
    if not path.exists():
        return 0, 0.0
    state = read_state(path, {"step", "elapsed_sec", *parts})
    try:
        for key, part in parts.items():
            part.load_state_dict(state[key])
        return int(state["step"]), float(state["elapsed_sec"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingStateError(f"{path}: the state of another network; remove it to start over") from error


def _is_finite(network: nn.Module) -> bool:
    values = (v for v in network.state_dict().values() if v.is_floating_point())
    return all(bool(torch.isfinite(value).all()) for value in values)
