"""Generates images from pure noise with a bundle's U-Net, for use if its training images are missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from ..data import ImageSet
from ..diffusion.from_noise import sample_from_noise
from ..nn.pixels import to_images
from ..outliers import check_finite
from .core import Bundle

# the name of this image set; ids begin with it
NAME = "from-noise"
STEPS = 50
GUIDANCE_SCALE = 1.0
BATCH_SIZE = 20


def knows_whole_schedule(bundle: Bundle) -> bool:
    """Whether the U-Net was trained up to T, so that it can start from pure noise."""
    return bundle.manifest.max_train_timestep >= len(bundle.schedule)


def images_from_noise(
    bundle: Bundle,
    per_cluster: int,
    *,
    turn: AbstractContextManager[object] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> ImageSet:
    """Samples images of each cluster from pure noise.

    An id consists of bundle, cluster and number, and decides the noise: `per_cluster` does not change an image,
    up to rounding.

    Args:
        turn: Held during each call of the network, such as a lock on the device.
        on_progress: Called with the share done, 0..1, after each step; an error from it ends the sampling.

    Returns:
        per_cluster * C images, in rounds of one image per cluster, labelled with their clusters.

    Raises:
        ValueError: The U-Net knows only a part of the schedule, or `per_cluster` is below 1.
        SamplingDiverged: A picture is NaN or infinite.
    """
    m = bundle.manifest
    if not knows_whole_schedule(bundle):
        raise ValueError(
            f"this U-Net knows noise up to S = {m.max_train_timestep} of {len(bundle.schedule)} only, so it"
            " makes no image from noise alone"
        )
    if per_cluster < 1:
        raise ValueError(f"per_cluster {per_cluster} is not at least 1")
    held = nullcontext() if turn is None else turn
    split = bundle.hash[:12] or "in-memory"
    labels = np.tile(np.arange(m.n_clusters), per_cluster)
    numbers = np.repeat(np.arange(per_cluster), m.n_clusters)
    pairs = zip(labels, numbers, strict=True)
    ids = np.array([f"{NAME}/{split}/{label:03d}-{number:03d}" for label, number in pairs], dtype=str)
    with held:
        model = bundle.inference  # made at the first use, which needs the device, too

    def in_turn(x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        with held:
            return model(x, timesteps, class_labels)

    parts = []
    for first in range(0, len(ids), BATCH_SIZE):
        rows = slice(first, first + BATCH_SIZE)

        def tell(step: int, x_t: object, x_0: object, first: int = first) -> None:
            if on_progress is not None:
                n = min(BATCH_SIZE, len(ids) - first)
                on_progress((first + n * (step + 1) / STEPS) / len(ids))

        x_0 = sample_from_noise(
            in_turn,
            bundle.schedule,
            torch.tensor(labels[rows], device=bundle.device),
            ids[rows].tolist(),
            m.image_size,
            m.n_clusters,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            callback=tell,
        )
        check_finite(x_0)
        parts.append(to_images(x_0))
    return ImageSet(NAME, split, np.concatenate(parts), labels.astype(np.int64), ids, bundle.class_names)
