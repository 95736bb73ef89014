"""Training of the noise predictor: Eq. 1 with the condition dropped at random."""

from __future__ import annotations

import copy
import logging
import os
import textwrap

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn import functional as F

from ..config.nodes import DiffusionConfig
from ..nn.device import has_fast_bf16, leave_group_at_exit, resolve_device
from ..nn.loop import Execution, run_steps
from ..nn.pixels import channels_first, scale
from ..nn.randomness import derive_seed, step_generator
from ..nn.unet import NoisePredictor
from ..nn.views import random_flip
from .schedule import NoiseSchedule

# by type of device; on others the network is not compiled
COMPILERS = {"cuda": "inductor"}
# shorter trainings end before the compiler does
COMPILE_FROM_STEPS = 2000

log = logging.getLogger(__name__)


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
    execution: Execution,
) -> tuple[NoisePredictor, bool]:
    """Minimises Eq. 1, || eps_theta(x_t, c) - eps ||^2, with c dropped to the null token by p_uncond.

    With `config.min_snr` each t has a weight; the loss that is reported is weighted, too.

    All randomness of a step comes from (config.seed, step). Several processes share the batch that one would
    have had and average their gradients. On CUDA it computes in bfloat16 where the device does, channels last,
    and a long training in compiled kernels; compiling counts as training time.

    Args:
        model: The network to start from; trained in place.
        images: uint8 (N,H,W,3).
        labels: int64 (N,), 0..C-1.

    Returns:
        The averaged (EMA) network on the CPU, and whether training is complete.

    Raises:
        ValueError: Labels outside 0..C-1, no images, images that are not uint8 (N,H,W,3), a timestep
            that the schedule does not have, or a batch that the processes cannot share evenly.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    max_t = config.max_train_timestep or schedule.num_train_timesteps
    _check(images, labels, model.null_label, max_t, schedule.num_train_timesteps)

    # --- set up -----------------------------------------------------------------------------------
    accelerator = make_accelerator(execution.device, config.mixed_precision)
    where = accelerator.device
    rank, world = accelerator.process_index, accelerator.num_processes
    n = config.batch_size
    if n % world:
        raise ValueError(f"batch_size {n} is not a multiple of the {world} processes")
    mine = slice(rank * n // world, (rank + 1) * n // world)
    model = model.to(where)
    if where.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=where.type != "mps")
    network, optimizer = accelerator.prepare(model, optimizer)
    model = accelerator.unwrap_model(network)
    # `prepare` gives every process the main one's weights
    ema.load_state_dict(model.state_dict())
    network.train()
    pixels = channels_first(images, where)
    targets = torch.tensor(labels).to(where)
    a_bar = schedule.alphas_cumprod.to(torch.float32).to(where)
    snr = a_bar / (1 - a_bar)
    weights = torch.ones_like(snr) if config.min_snr is None else snr.clamp(max=config.min_snr) / snr

    def compile_if_long(first_step: int) -> None:
        if where.type in COMPILERS and config.total_steps - first_step >= COMPILE_FROM_STEPS:
            x = torch.zeros((n // world, *pixels.shape[1:]), device=where)
            # two tensors: with one, the compiled call would expect one and the same
            t, condition = (torch.zeros(n // world, dtype=torch.int64, device=where) for _ in range(2))
            compile_unet(model, (x, t, condition), COMPILERS[where.type])

    def one_step(step: int, progress: float) -> torch.Tensor:
        # 1. draw the batch: images, t ~ Uniform{0..max_t-1}, noise, dropped conditions
        generator = step_generator(config.seed, step, "batch", where)
        torch.manual_seed(derive_seed(config.seed, str(step), f"dropout in process {rank}"))
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
        loss = (weights[t] * (eps.float() - noise).square().mean((1, 2, 3))).mean()

        # 3. step, then average
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_factor(step, progress, config)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        # a gradient that is NaN or infinite ruins the weights one step before the loss shows it
        return accelerator.reduce(loss.detach() + 0 * norm, "mean")

    complete = run_steps(
        "U-Net",
        one_step,
        {"model": model, "ema": ema},
        optimizer,
        config,
        n,
        execution,
        before_steps=compile_if_long,
        time_limit_sec=config.time_limit_sec,
        accelerator=accelerator,
    )
    accelerator.wait_for_everyone()
    return ema.to("cpu"), complete


def _check(images: np.ndarray, labels: np.ndarray, n_classes: int, max_t: int, n_timesteps: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"training images must be uint8 (N,H,W,3), not {images.dtype} {images.shape}")
    if len(images) == 0:
        raise ValueError("no images to train on")
    if labels.shape != (len(images),):
        raise ValueError(f"training labels: shape {labels.shape}, but there are {len(images)} images")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"training labels must lie in 0..{n_classes - 1}, not {labels.min()}..{labels.max()}")
    if max_t > n_timesteps:
        raise ValueError(f"max_train_timestep {max_t} is outside 1..{n_timesteps}")
