"""SimCLR (Chen et al. 2020): an encoder trained without labels, two views of an image against all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..config.nodes import SimCLRConfig, ViewsConfig
from ..nn.classifier import Projection
from ..nn.device import fast_autocast, resolve_device
from ..nn.encoder import Encoder
from ..nn.loop import LoopReport, train_networks
from ..nn.losses import nt_xent
from ..nn.pixels import channels_first, scale
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
    where = resolve_device(device)
    torch.manual_seed(seed)
    projection = Projection(encoder.feature_dim, config.projection_hidden, config.projection_dim)
    pixels = channels_first(images, where)
    batch = min(config.batch_size, len(pixels))

    def loss_at(step: int) -> torch.Tensor:
        # 1. distinct images: an image twice in a batch would be its own negative; drawn on the CPU, so that
        #    every device sees the same
        generator = step_generator(seed, step, "SimCLR")
        x = scale(pixels[torch.randperm(len(pixels), generator=generator)[:batch].to(where)])
        both = torch.cat([random_views(x, views, generator), random_views(x, views, generator)])
        # 2. the loss over both views in one pass
        with fast_autocast(where):
            first, second = projection(encoder(both)).chunk(2)
        return nt_xent(first, second, config.temperature)

    done = train_networks(
        "encoder",
        {"encoder": encoder, "projection": projection},
        loss_at,
        config.optimizer,
        config.total_steps,
        batch,
        where,
        state_path,
        config.save_every_sec,
        on_report,
        should_stop,
    )
    return projection if done else None
