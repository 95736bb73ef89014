"""Runs a network over many images in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from .device import resolve_device
from .pixels import channels_last, scale


@torch.no_grad()
def in_batches(
    function: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    images: np.ndarray,
    device: str | torch.device,
    batch_size: int,
) -> list[np.ndarray]:
    """Calls a function on batches of images uint8 (N,H,W,3) and joins the results: arrays of N rows.

    The function takes uint8 (n,3,H,W) on the device and returns tensors of n rows; floats become float32.
    """
    where = resolve_device(device)
    parts = []
    for first in range(0, len(images), batch_size):
        columns = function(channels_last(images[first : first + batch_size], where))
        parts.append([one.float().cpu() if one.is_floating_point() else one.cpu() for one in columns])
    return [torch.cat(column).numpy() for column in zip(*parts, strict=True)]


def encode(
    network: nn.Module, images: np.ndarray, device: str | torch.device = "auto", batch_size: int = 256
) -> np.ndarray:
    """Outputs float32 (N,D) of a network in eval mode for images uint8 (N,H,W,3); it stays on the device."""
    network = network.to(resolve_device(device)).eval()
    return in_batches(lambda pixels: [network(scale(pixels))], images, device, batch_size)[0]


def predict(
    classifier: nn.Module, images: np.ndarray, device: str | torch.device = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Label int64 (N,) and confidence float32 (N,), the largest probability, of images uint8 (N,H,W,3)."""
    top = torch.tensor(encode(classifier, images, device, 512)).softmax(1).max(1)
    return top.indices.numpy(), top.values.numpy()
