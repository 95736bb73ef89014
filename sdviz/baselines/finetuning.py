"""The training that several methods share: a copy of the encoder, a loss of their own, one loop."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..config import OptimizerConfig, ViewsConfig
from ..nn.batches import encode
from ..nn.device import has_fast_bf16, resolve_device
from ..nn.encoder import Encoder
from ..nn.loop import cosine_rate, make_optimizer, run_steps
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
    for part in parts.values():
        part.to(where).train()
    trained = [p for part in parts.values() for p in part.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, optimizer_config)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).contiguous().to(where)
    views = reference.views or ViewsConfig()
    batch = min(batch_size, len(pixels))
    total_steps = max(1, round(epochs * len(pixels) / batch))
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=has_fast_bf16(where))

    def one_step(step: int) -> torch.Tensor:
        generator = step_generator(reference.seed, step, name)
        rows = torch.randperm(len(pixels), generator=generator)[:batch].to(where)
        x = pixels[rows].to(torch.float32) / 127.5 - 1.0
        with autocast:
            loss = make_loss(rows, random_views(x, views, generator) if augment else x, generator)
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, total_steps, optimizer_config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if on_progress is not None:
            on_progress((step + 1) / total_steps)
        return loss.detach()

    run_steps(name, total_steps, one_step, dict(parts), batch)
    for part in parts.values():
        part.to("cpu").eval()


def features_of(encoder: Encoder, images: np.ndarray, reference: Reference) -> np.ndarray:
    """Features float32 (N,D) of images uint8 (N,H,W,3)."""
    return encode(encoder, images, reference.device)
