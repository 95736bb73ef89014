"""Training of the noise predictor: Eq. 1 with the condition dropped at random."""

from __future__ import annotations

import copy
import logging
import math
import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast
from torch.nn import functional as F

from ..config.nodes import DiffusionConfig
from ..nn.device import has_fast_bf16, leave_group_at_exit, resolve_device
from ..nn.loop import TrainingDiverged, TrainingStateError, read_state
from ..nn.loop import save_state as write_state
from ..nn.pixels import channels_first, scale
from ..nn.randomness import derive_seed, step_generator
from ..nn.unet import NoisePredictor
from ..nn.views import random_flip
from .schedule import NoiseSchedule

REPORT_EVERY_STEPS = 20
STATE_KEYS = {"model", "ema", "optimizer", "step", "elapsed_sec"}
# by type of device; on others the network is not compiled
COMPILERS = {"cuda": "inductor"}
# shorter trainings end before the compiler does
COMPILE_FROM_STEPS = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingReport:
    """One line of progress.

    Attributes:
        loss: Mean of Eq. 1 since the last report.
        elapsed_sec: Training time, earlier interrupted parts included.
        progress: 0..1, by steps or by the time limit, whichever is further.
    """

    step: int
    total_steps: int
    loss: float
    learning_rate: float
    images_per_sec: float
    elapsed_sec: float
    progress: float


def make_accelerator(device: str, mixed_precision: str) -> Accelerator:
    """An Accelerator of its own, whatever was made before; "auto" precision is bf16 where it is fast."""
    on_cpu = resolve_device(device).type == "cpu"
    if mixed_precision == "auto":
        fast = has_fast_bf16(resolve_device(device))
        mixed_precision = "bf16" if fast else "no"
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    else:
        leave_group_at_exit()
    return Accelerator(cpu=on_cpu, mixed_precision=mixed_precision)


def compile_unet(
    model: NoisePredictor, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], backend: str
) -> bool:
    """Compiles the U-Net for training on batches of one shape; if that fails, it stays as it was.

    The call is compiled, the module is not wrapped: its parameters and the keys of its state stay the same. No
    weight, gradient or buffer changes. TORCHDYNAMO_DISABLE=1 in the environment switches it off.

    Args:
        model: On its device, in train mode and prepared by accelerate, so that its call has its autocast.
        batch: x float (N,3,H,W), timesteps and class labels int64 (N,); only the shapes matter.

    Returns:
        Whether it is compiled; if not, the reason is logged in one line.
    """
    torch.compiler.reset()  # what this process compiled for earlier networks counts against a limit
    try:
        model.unet.compile(backend=backend, dynamic=False)
        # both passes now: the gradient may fail to compile, too
        loss = F.mse_loss(model(*batch).float(), batch[0])
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return True
    except Exception as error:  # no compiler, an old driver, ...: it can be any error
        model.unet._compiled_call_impl = None
        torch.compiler.reset()
        # the other paragraphs say how to debug torch
        reason = textwrap.shorten(str(error).strip().split("\n\n")[0], 300) or type(error).__name__
        log.warning("the U-Net is trained uncompiled, which is slower: %s", reason)
        return False


def rate_factor(step: int, progress: float, config: DiffusionConfig) -> float:
    """Learning rate over its peak: linear warm-up, flat, then linear to 0 over the last `cooldown` share."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.cooldown and progress > 1 - config.cooldown:
        return warm * max(0.0, (1 - progress) / config.cooldown)
    return warm


def train_noise_predictor(
    model: NoisePredictor,
    images: np.ndarray,
    labels: np.ndarray,
    schedule: NoiseSchedule,
    config: DiffusionConfig,
    state_path: Path | None = None,
    device: str = "auto",
    on_report: Callable[[TrainingReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[NoisePredictor, bool]:
    """Minimises Eq. 1, || eps_theta(x_t, c) - eps ||^2, with c dropped to the null token by p_uncond.

    All randomness of a step comes from (config.seed, step), so a run resumed from `state_path` does
    bit for bit what it would have done undisturbed (on the CPU, at equal thread count, without a time
    limit). Several processes share the batch that one would have had and average their gradients;
    the main one's clock and `should_stop` count for all. On CUDA it computes in bfloat16 where the device
    does, channels last, and a long training in compiled kernels; compiling counts as training time.

    Args:
        model: The network to start from; trained in place.
        images: uint8 (N,H,W,3).
        labels: int64 (N,), 0..C-1.
        state_path: Where to keep the resume state; read first if it is there.
        on_report: Called every few steps, in the main process.
        should_stop: Asked before every step, in the main process; True saves the state and returns.

    Returns:
        The averaged (EMA) network on the CPU, and whether training is complete.

    Raises:
        ValueError: Labels outside 0..C-1, no images, images that are not uint8 (N,H,W,3), a timestep
            that the schedule does not have, or a batch that the processes cannot share evenly.
        TrainingStateError: `state_path` holds no state of this network.
        TrainingDiverged: The loss became NaN or infinite; the last good state stays on disk.
        OSError: The state cannot be written; the last one stays.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"training images must be uint8 (N,H,W,3), not {images.dtype} {images.shape}")
    if len(images) == 0:
        raise ValueError("no images to train on")
    if labels.shape != (len(images),):
        raise ValueError(f"training labels: shape {labels.shape}, but there are {len(images)} images")
    if labels.min() < 0 or labels.max() >= model.null_label:
        raise ValueError(
            f"training labels must lie in 0..{model.null_label - 1}, not {labels.min()}..{labels.max()}"
        )
    max_t = config.max_train_timestep or schedule.num_train_timesteps
    if max_t > schedule.num_train_timesteps:
        raise ValueError(f"max_train_timestep {max_t} is outside 1..{schedule.num_train_timesteps}")

    # --- set up -----------------------------------------------------------------------------------
    accelerator = make_accelerator(device, config.mixed_precision)
    where = accelerator.device
    rank, world = accelerator.process_index, accelerator.num_processes
    if config.batch_size % world:
        raise ValueError(f"batch_size {config.batch_size} is not a multiple of the {world} processes")
    mine = slice(rank * config.batch_size // world, (rank + 1) * config.batch_size // world)
    model = model.to(where)
    if where.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=where.type != "mps")
    network, optimizer = accelerator.prepare(model, optimizer)
    # `prepare` gives every process the main one's weights
    ema.load_state_dict(accelerator.unwrap_model(network).state_dict())
    pixels = channels_first(images, where)
    targets = torch.tensor(labels).to(where)
    a_bar = schedule.alphas_cumprod.to(torch.float32).to(where)

    step, elapsed_before = 0, 0.0
    if state_path is not None and state_path.exists():
        state = read_state(state_path, STATE_KEYS)
        try:
            accelerator.unwrap_model(network).load_state_dict(state["model"])
            ema.load_state_dict(state["ema"])
            optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingStateError(
                f"{state_path}: the state of another network; remove it to start over"
            ) from error
        step, elapsed_before = state["step"], state["elapsed_sec"]
    elif state_path is not None:
        state_path.parent.mkdir(parents=True, exist_ok=True)

    def check_finite() -> None:
        # the gradient too: it ruins the weights one step before the loss shows it
        if not math.isfinite(float(loss_sum + norm_sum)):
            raise TrainingDiverged(
                f"the loss or its gradient became NaN or infinite by step {step} of {config.total_steps}:"
                f" try a learning rate below {config.learning_rate:g}"
            )

    def save_state() -> None:
        check_finite()
        if state_path is None or not accelerator.is_main_process:
            return
        state = {
            "model": accelerator.unwrap_model(network).state_dict(),
            "ema": ema.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "elapsed_sec": elapsed_before + time.monotonic() - started,
        }
        write_state(state_path, state)

    # --- compile ----------------------------------------------------------------------------------
    started = time.monotonic()
    network.train()
    if where.type in COMPILERS and config.total_steps - step >= COMPILE_FROM_STEPS:
        n = config.batch_size // world
        x = torch.zeros((n, *pixels.shape[1:]), device=where)
        # two tensors: with one, the compiled call would expect one and the same
        t, condition = (torch.zeros(n, dtype=torch.int64, device=where) for _ in range(2))
        compile_unet(model, (x, t, condition), COMPILERS[where.type])

    # --- loop -------------------------------------------------------------------------------------
    last_save = last_report = time.monotonic()
    loss_sum, norm_sum, loss_steps = torch.zeros((), device=where), torch.zeros((), device=where), 0
    complete = True
    while step < config.total_steps:
        elapsed = elapsed_before + time.monotonic() - started
        stop = should_stop is not None and accelerator.is_main_process and should_stop()
        if world > 1:
            # all processes stop at the same step, or the others would wait for a gradient
            word = broadcast(torch.tensor([float(stop), elapsed], device=where))
            stop, elapsed = bool(word[0]), float(word[1])
        progress = step / config.total_steps
        if config.time_limit_sec is not None:
            progress = max(progress, elapsed / config.time_limit_sec)
            if elapsed >= config.time_limit_sec:
                break
        if stop:
            complete = False
            break

        # 1. draw the batch: images, t ~ Uniform{0..max_t-1}, noise, dropped conditions
        generator = step_generator(config.seed, step, "batch", where)
        torch.manual_seed(derive_seed(config.seed, str(step), f"dropout in process {rank}"))
        n = config.batch_size
        rows = torch.randint(len(pixels), (n,), generator=generator, device=where)[mine]
        t = torch.randint(max_t, (n,), generator=generator, device=where)[mine]
        dropped = (torch.rand(n, generator=generator, device=where) < config.p_uncond)[mine]
        flip_draws = torch.rand(n, generator=generator, device=where)[mine]
        noise = torch.randn((n, *pixels.shape[1:]), generator=generator, device=where)[mine]
        x_0 = scale(pixels[rows])
        if config.random_flip:
            x_0 = random_flip(x_0, flip_draws)
        condition = torch.where(dropped, model.null_label, targets[rows])

        # 2. Eq. 1
        a = a_bar[t][:, None, None, None]
        with accelerator.autocast():
            eps = network(a.sqrt() * x_0 + (1 - a).sqrt() * noise, t, condition)
        loss = F.mse_loss(eps.float(), noise)

        # 3. step, then average
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_factor(step, progress, config)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        norm_sum += accelerator.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            source = list(accelerator.unwrap_model(network).parameters())
            torch._foreach_lerp_(list(ema.parameters()), source, 1 - decay)
        loss_sum += loss.detach()
        loss_steps += 1
        step += 1

        # 4. report; a state with NaN in it is never written
        now = time.monotonic()
        due = step % REPORT_EVERY_STEPS == 0 or step == config.total_steps
        save_due = now - last_save >= config.save_every_sec
        if due:
            check_finite()
            mean_loss = float(accelerator.reduce(loss_sum, "mean")) / loss_steps
            if on_report is not None and accelerator.is_main_process:
                rate = loss_steps * config.batch_size / max(1e-9, now - last_report)
                seconds = elapsed_before + now - started
                shown_lr = float(optimizer.param_groups[0]["lr"])
                done = max(progress, step / config.total_steps)
                on_report(TrainingReport(step, config.total_steps, mean_loss, shown_lr, rate, seconds, done))
            loss_sum.zero_()
            norm_sum.zero_()
            loss_steps, last_report = 0, now
        if save_due:
            save_state()
            last_save = time.monotonic()

    save_state()
    accelerator.wait_for_everyone()
    return ema.to("cpu"), complete
