"""Work on many rows or images, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from .device import resolve_device
from .pixels import channels_last, scale


def slices(n: int, size: int, on_progress: Callable[[float], None] | None = None) -> Iterator[slice]:
    """Yields slices of at most `size` rows that cover n rows; after each, reports the share done, 0..1."""
    for first in range(0, n, size):
        last = min(first + size, n)
        yield slice(first, last)
        if on_progress is not None:
            on_progress(last / n)


def rows_within(batch_size: int, size_px: int) -> int:
    """How many images of that side have the pixels of `batch_size` images of 32 px; never more, at least 1."""
    return max(1, batch_size * 32**2 // max(size_px, 32) ** 2)


@torch.no_grad()
def in_batches(
    function: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    images: np.ndarray,
    device: str | torch.device,
    batch_size: int,
) -> list[np.ndarray]:
    """Calls a function on batches of images, uint8 (N,H,W,3), and joins the results.

    The function takes uint8 (n,3,H,W) on the device and returns tensors of n rows. The joined arrays have N
    rows; floats become float32. Of images above 32 px it gets fewer than `batch_size`, with as many pixels.
    """
    where = resolve_device(device)
    parts = []
    for some in slices(len(images), rows_within(batch_size, images.shape[1])):
        columns = function(channels_last(images[some], where))
        parts.append([one.float().cpu() if one.is_floating_point() else one.cpu() for one in columns])
    return [torch.cat(column).numpy() for column in zip(*parts, strict=True)]


def encode(
    network: nn.Module, images: np.ndarray, device: str | torch.device = "auto", batch_size: int = 256
) -> np.ndarray:
    """Runs a network in eval mode on images uint8 (N,H,W,3): float32 (N,D). The network stays on the device."""
    network = network.to(resolve_device(device)).eval()
    return in_batches(lambda pixels: [network(scale(pixels))], images, device, batch_size)[0]


def predict(
    classifier: nn.Module, images: np.ndarray, device: str | torch.device = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Classifies images uint8 (N,H,W,3): label int64 (N,) and its probability float32 (N,)."""
    top = torch.tensor(encode(classifier, images, device, 512)).softmax(1).max(1)
    return top.indices.numpy(), top.values.numpy()
