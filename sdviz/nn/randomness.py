"""Random numbers that depend on a seed and a name, not on the batch or on earlier draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


def derive_seed(seed: int, image_id: str, purpose: str) -> int:
    """Hashes its arguments to a 63-bit seed; a generator on the CPU uses its low 32 bits."""
    digest = hashlib.sha256(f"{seed}\x1f{purpose}\x1f{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def step_generator(seed: int, step: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """The random generator of one training step; a resumed training draws the same numbers."""
    return torch.Generator(device).manual_seed(derive_seed(seed, str(step), purpose))


def image_noise(ids: Sequence[str], shape: tuple[int, ...], seed: int, purpose: str) -> torch.Tensor:
    """Draws standard normal noise for each image, float32 (N,*shape), on the CPU.

    Args:
        shape: Of one image, (3,H,W).
        purpose: "start" for the noise of x_S, "step <t>" for the noise that a sampler adds at timestep t.
    """
    out = torch.empty((len(ids), *shape))
    generator = torch.Generator()
    for row, image_id in zip(out, ids, strict=True):
        generator.manual_seed(derive_seed(seed, image_id, purpose))
        torch.randn(shape, generator=generator, out=row)
    return out


def content_ids(images: np.ndarray) -> np.ndarray:
    """Ids for images without any, str (N,): the SHA-256 of each image's bytes, uint8 (N,H,W,3)."""
    return np.array([hashlib.sha256(np.ascontiguousarray(i).tobytes()).hexdigest() for i in images], dtype=str)
