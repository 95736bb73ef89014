"""SimCLR (Chen et al. 2020): trains an encoder to tell two views of an image from all other images."""

from __future__ import annotations

import numpy as np
import torch

from ..config.nodes import SimCLRConfig, ViewsConfig
from ..nn.classifier import Projection
from ..nn.device import fast_autocast
from ..nn.encoder import Encoder
from ..nn.loop import Execution, train_networks
from ..nn.losses import nt_xent
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views


def train_simclr(
    encoder: Encoder,
    images: np.ndarray,
    views: ViewsConfig,
    config: SimCLRConfig,
    execution: Execution,
    seed: int = 0,
) -> Projection | None:
    """Trains an encoder in place and returns the projection head, on the CPU; None if it was stopped.

    Args:
        encoder: The network to start from; on the CPU and in eval mode afterwards.
        images: uint8 (N,H,W,3).
        seed: Of the projection's first weights, the batches and the views.

    Raises:
        ValueError: Fewer than two images.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    if len(images) < 2:
        raise ValueError(f"SimCLR needs at least 2 images, there are {len(images)}")
    where = execution.where
    torch.manual_seed(seed)
    projection = Projection(encoder.feature_dim, config.projection_hidden, config.projection_dim)
    pixels = channels_first(images, where)
    batch = min(config.batch_size, len(pixels))

    def loss_at(step: int) -> torch.Tensor:
        # 1. distinct images, or one would be its own negative; drawn on the CPU, equally for every device
        generator = step_generator(seed, step, "SimCLR")
        x = scale(pixels[torch.randperm(len(pixels), generator=generator)[:batch].to(where)])
        both = torch.cat([random_views(x, views, generator), random_views(x, views, generator)])
        # 2. the loss over both views in one pass
        with fast_autocast(where):
            first, second = projection(encoder(both)).chunk(2)
        return nt_xent(first, second, config.temperature)

    networks = {"encoder": encoder, "projection": projection}
    done = train_networks("encoder", networks, loss_at, config, batch, execution)
    return projection if done else None
