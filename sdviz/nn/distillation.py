"""Distillation: a small network learns to give the features of a large one."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..config.nodes import DistillationConfig
from .device import fast_autocast
from .encoder import Encoder
from .loop import Execution, train_networks
from .pixels import channels_first, scale
from .randomness import step_generator
from .views import random_views


def train_distilled(
    encoder: Encoder,
    images: np.ndarray,
    features: np.ndarray,
    config: DistillationConfig,
    execution: Execution,
    seed: int = 0,
) -> bool:
    """Trains an encoder in place to give a teacher's features; False if it was stopped.

    The loss is 1 - cosine between the teacher's feature of the plain image and a linear map of the encoder's
    feature of a view of it. The map is discarded afterwards.

    Args:
        encoder: The network to start from; on the CPU and in eval mode afterwards.
        images: uint8 (N,H,W,3).
        features: float (N,D), by the teacher.
        seed: Of the map, the batches and the views.

    Raises:
        ValueError: No images, or features that do not fit them.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    if len(images) == 0 or features.ndim != 2 or len(features) != len(images):
        raise ValueError(f"features {features.shape} of {len(images)} images to learn from")
    where = execution.where
    torch.manual_seed(seed)
    pixels = channels_first(images, where)
    targets = F.normalize(torch.tensor(features, dtype=torch.float32), dim=1).to(where)
    network = nn.Sequential(encoder, nn.Linear(encoder.feature_dim, features.shape[1]))

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(seed, step, "distillation")
        rows = torch.randint(len(pixels), (config.batch_size,), generator=generator).to(where)
        x = random_views(scale(pixels[rows]), config.views, generator)
        with fast_autocast(where):
            found = network(x)
        return 1 - F.cosine_similarity(found.float(), targets[rows]).mean()

    return train_networks("distillation", {"network": network}, loss_at, config, config.batch_size, execution)
