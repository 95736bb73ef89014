"""Images to tensors and back: uint8 (N,H,W,3) outside, float32 (N,3,H,W) in [-1,1] for networks."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

Levels = TypeVar("Levels", np.ndarray, torch.Tensor)


def to_tensor(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Converts uint8 (N,H,W,3) to float32 (N,3,H,W) in [-1,1]."""
    return scale(channels_first(images, device))


def to_images(x: torch.Tensor) -> np.ndarray:
    """Converts float (N,3,H,W) to uint8 (N,H,W,3), clipped to [-1,1] first."""
    levels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().contiguous().numpy()


def channels_first(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Copies uint8 (N,H,W,3) to the device as uint8 (N,3,H,W): a quarter of the memory of `to_tensor`."""
    return channels_last(images).contiguous().to(device)


def channels_last(images: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """As `channels_first`, but the memory stays in the order of the images: convolutions are fastest in it."""
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2).to(device)


def scale(pixels: torch.Tensor) -> torch.Tensor:
    """Maps grey levels, uint8 0..255, to float32 in [-1,1]."""
    return centred(pixels.to(torch.float32))


def centred(levels: Levels) -> Levels:
    """Maps grey levels, floats 0..255, to [-1,1]."""
    return levels / 127.5 - 1.0
