"""Randomness that belongs to an image, not to a batch: everything is drawn from (seed, id)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


def derive_seed(seed: int, image_id: str, purpose: str) -> int:
    """A 63-bit number that depends on all three and on nothing else.

    The CPU's dice use its low 32 bits.
    """
    digest = hashlib.sha256(f"{seed}\x1f{purpose}\x1f{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def content_ids(images: np.ndarray) -> np.ndarray:
    """str (N,): the SHA-256 of each image's bytes.

    Args:
        images: uint8 (N,H,W,3).
    """
    return np.array([hashlib.sha256(np.ascontiguousarray(i).tobytes()).hexdigest() for i in images], dtype=str)


def image_noise(ids: Sequence[str], shape: tuple[int, ...], seed: int, purpose: str) -> torch.Tensor:
    """Standard normal noise for each image, float32 (N,*shape), on the CPU.

    Args:
        ids: The images' ids.
        shape: Of one image, (3,H,W).
        seed: The user's seed.
        purpose: "start" for q-sampling, "step <t>" for the noise that a sampler adds at timestep t.
    """
    out = torch.empty((len(ids), *shape))
    dice = torch.Generator()
    for row, image_id in zip(out, ids, strict=True):
        dice.manual_seed(derive_seed(seed, image_id, purpose))
        torch.randn(shape, generator=dice, out=row)
    return out
