"""The training that several methods share: a copy of the encoder, a loss of their own, one loop."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..config import OptimizerConfig, ViewsConfig
from ..nn.batches import encode
from ..nn.device import fast_autocast, resolve_device
from ..nn.encoder import Encoder
from ..nn.loop import train_networks
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views
from .interface import OnProgress, Reference

# (rows of the images, views of them in [-1,1], the generator of the step) -> the loss
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]


def encoder_of(reference: Reference) -> Encoder:
    """A copy of the reference's encoder, free to be trained."""
    assert reference.encoder is not None
    encoder = copy.deepcopy(reference.encoder).to("cpu")
    encoder.freeze(0)
    return encoder.requires_grad_(True)


def train(
    name: str,
    parts: dict[str, nn.Module],
    images: np.ndarray,
    make_loss: Loss,
    reference: Reference,
    optimizer_config: OptimizerConfig,
    epochs: float,
    batch_size: int,
    augment: bool = True,
    on_progress: OnProgress | None = None,
) -> None:
    """Trains networks in place; on the CPU and in eval mode afterwards.

    Args:
        name: Of the method, for errors.
        parts: The networks by name; all of their parameters that ask for a gradient are trained.
        images: uint8 (N,H,W,3), drawn from with replacement.
        make_loss: Of one batch; called under autocast where the device has bfloat16.
        reference: Its views, seed and device.
        optimizer_config: Rate and more.
        epochs: How often each image is seen, on average.
        batch_size: Images a step.
        augment: Whether views are augmented; without, they are the images.
        on_progress: Told the share done.
    """
    where = resolve_device(reference.device)
    pixels = channels_first(images, where)
    views = reference.views or ViewsConfig()
    batch = min(batch_size, len(pixels))
    total_steps = max(1, round(epochs * len(pixels) / batch))

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(reference.seed, step, name)
        rows = torch.randperm(len(pixels), generator=generator)[:batch].to(where)
        x = scale(pixels[rows])
        if augment:
            x = random_views(x, views, generator)
        with fast_autocast(where):
            return make_loss(rows, x, generator)

    def after_step(step: int) -> None:
        if on_progress is not None:
            on_progress(step / total_steps)

    train_networks(name, parts, loss_at, optimizer_config, total_steps, batch, where, after_step=after_step)


def features_of(encoder: Encoder, images: np.ndarray, reference: Reference) -> np.ndarray:
    """Features float32 (N,D) of images uint8 (N,H,W,3)."""
    return encode(encoder, images, reference.device)
