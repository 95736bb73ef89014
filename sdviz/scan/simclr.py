"""SimCLR (Chen et al. 2020): an encoder trained without labels, two views of an image against all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..config import PretrainingConfig, SimCLRConfig, ViewsConfig
from ..nn.classifier import Projection
from ..nn.device import has_fast_bf16, resolve_device
from ..nn.encoder import Encoder
from ..nn.loop import LoopReport, Stateful, cosine_rate, make_optimizer, run_steps
from ..nn.losses import nt_xent
from ..nn.randomness import step_generator
from ..nn.views import random_views


def train_simclr(
    encoder: Encoder,
    images: np.ndarray,
    views: ViewsConfig,
    config: SimCLRConfig,
    seed: int = 0,
    state_path: Path | None = None,
    device: str = "auto",
    on_report: Callable[[LoopReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Projection | None:
    """Trains an encoder in place; resumes from `state_path` where that is.

    Args:
        encoder: The network to start from; on the CPU and in eval mode afterwards.
        images: uint8 (N,H,W,3).
        views: What views may differ in.
        config: How to train.
        seed: Of the projection's first weights, the batches and the views.
        state_path: Where to keep the resume state.
        device: "auto", "cpu", "cuda", ...
        on_report: Called every few steps.
        should_stop: Asked before every step.

    Returns:
        The projection head, on the CPU; None if training was stopped.

    Raises:
        ValueError: Fewer than two images.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    if len(images) < 2:
        raise ValueError(f"SimCLR needs at least 2 images, there are {len(images)}")
    # 1. set up; all draws are made on the CPU, so that every device sees the same batches
    where = resolve_device(device)
    torch.manual_seed(seed)
    projection = Projection(encoder.feature_dim, config.projection_hidden, config.projection_dim).to(where)
    encoder.to(where).train()
    optimizer = make_optimizer([*encoder.parameters(), *projection.parameters()], config.optimizer)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).contiguous().to(where)
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=has_fast_bf16(where))
    batch = min(config.batch_size, len(pixels))

    def one_step(step: int) -> torch.Tensor:
        generator = step_generator(seed, step, "SimCLR")
        # 2. distinct images: an image twice in a batch would be its own negative
        rows = torch.randperm(len(pixels), generator=generator)[:batch].to(where)
        x = pixels[rows].to(torch.float32) / 127.5 - 1.0
        both = torch.cat([random_views(x, views, generator), random_views(x, views, generator)])
        # 3. the loss over both views in one pass
        with autocast:
            z = projection(encoder(both))
        first, second = z.chunk(2)
        loss = nt_xent(first, second, config.temperature)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, config.total_steps, config.optimizer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    parts: dict[str, Stateful] = {"encoder": encoder, "projection": projection, "optimizer": optimizer}
    done = run_steps(
        "encoder",
        config.total_steps,
        one_step,
        parts,
        batch,
        state_path,
        config.save_every_sec,
        on_report,
        should_stop,
    )
    encoder.to("cpu").eval()
    return projection.to("cpu").eval() if done else None


def train_supervised(
    encoder: Encoder,
    images: np.ndarray,
    labels: np.ndarray,
    views: ViewsConfig,
    config: PretrainingConfig,
    seed: int = 0,
    state_path: Path | None = None,
    device: str = "auto",
    on_report: Callable[[LoopReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> float | None:
    """Trains an encoder in place on labels, under a linear head that is thrown away.

    Args:
        encoder: The network to start from; on the CPU and in eval mode afterwards.
        images: uint8 (N,H,W,3).
        labels: int64 (N,), 0..K-1.
        views: Its augmentation.
        config: How to train.
        seed: Of the head, the batches and the views.
        state_path: Where to keep the resume state; read first if it is there.
        device: "auto", "cpu", "cuda", ...
        on_report: Called every few steps.
        should_stop: Asked before every step.

    Returns:
        The mean loss over the last report; None if training was stopped.

    Raises:
        ValueError: No images, or labels below 0.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    if len(images) == 0 or labels.min() < 0:
        raise ValueError("supervised pre-training needs images that all have a label")
    where = resolve_device(device)
    torch.manual_seed(seed)
    head = nn.Linear(encoder.feature_dim, int(labels.max()) + 1).to(where)
    encoder.to(where).train()
    optimizer = make_optimizer([*encoder.parameters(), *head.parameters()], config.optimizer)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).contiguous().to(where)
    targets = torch.tensor(labels).to(where)
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=has_fast_bf16(where))
    last = [float("nan")]

    def one_step(step: int) -> torch.Tensor:
        generator = step_generator(seed, step, "pretraining")
        rows = torch.randint(len(pixels), (config.batch_size,), generator=generator).to(where)
        x = random_views(pixels[rows].to(torch.float32) / 127.5 - 1.0, views, generator)
        with autocast:
            logits = head(encoder(x))
        loss = F.cross_entropy(logits.float(), targets[rows])
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, config.total_steps, config.optimizer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def report(r: LoopReport) -> None:
        last[0] = r.loss
        if on_report is not None:
            on_report(r)

    done = run_steps(
        "pre-training",
        config.total_steps,
        one_step,
        {"encoder": encoder, "head": head, "optimizer": optimizer},
        config.batch_size,
        state_path,
        config.save_every_sec,
        report,
        should_stop,
    )
    encoder.to("cpu").eval()
    return last[0] if done else None
