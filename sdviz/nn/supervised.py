"""Supervised training: the classifier of given labels, and the encoder's pre-training on another set."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..config.nodes import ClustererConfig, OptimizerConfig, PretrainingConfig, TrainingConfig, ViewsConfig
from .batches import predict
from .classifier import ScanClassifier, SmallClassifier
from .device import fast_autocast
from .encoder import Encoder
from .loop import Execution, train_networks
from .pixels import channels_first, scale
from .randomness import step_generator
from .views import random_views


def train_supervised(
    encoder: Encoder,
    images: np.ndarray,
    labels: np.ndarray,
    views: ViewsConfig,
    config: PretrainingConfig,
    execution: Execution,
    seed: int = 0,
) -> bool:
    """Trains an encoder in place on labels under a linear head, which is discarded; False if stopped.

    Args:
        encoder: The network to start from; on the CPU and in eval mode afterwards.
        images: uint8 (N,H,W,3).
        labels: int64 (N,), 0..K-1.
        seed: Of the head, the batches and the views.

    Raises:
        ValueError: No images, or labels below 0.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    if len(images) == 0 or labels.min() < 0:
        raise ValueError("supervised pre-training needs images that all have a label")
    torch.manual_seed(seed)
    network = nn.Sequential(encoder, nn.Linear(encoder.feature_dim, int(labels.max()) + 1))
    return _train("pre-training", network, images, labels, views, config, execution, seed)


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    config: ClustererConfig,
    execution: Execution,
    seed: int = 0,
) -> SmallClassifier | None:
    """Trains a small classifier from scratch: in eval mode on the CPU; None if it was stopped.

    Args:
        images: uint8 (N,H,W,3).
        labels: int64 (N,), 0..C-1.
        seed: Of the first weights, the batches and the views.

    Raises:
        ValueError: No images, or labels outside 0..C-1.
        TrainingDiverged: The loss or a weight became NaN or infinite.
    """
    if len(images) == 0:
        raise ValueError("no images to train on")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"training labels must lie in 0..{n_classes - 1}")
    optimizer = OptimizerConfig(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=config.total_steps // 10,
    )
    training = TrainingConfig(total_steps=config.total_steps, batch_size=config.batch_size, optimizer=optimizer)
    views = classifier_views(config, min(images.shape[1:3]))
    torch.manual_seed(seed)
    network = SmallClassifier(n_classes, config.width)
    done = _train("clusterer", network, images, labels, views, training, execution, seed)
    return network if done else None


def classifier_views(config: ClustererConfig, size_px: int) -> ViewsConfig:
    """The clusterer's augmentation: windows up to `max_shift_px` off centre, and changed colours."""
    jitter = config.colour_jitter
    side = 1 - 2 * min(config.max_shift_px, size_px // 4) / size_px
    return ViewsConfig(
        area=(side**2, 1.0),
        random_flip=config.random_flip,
        brightness=jitter,
        contrast=jitter,
        saturation=jitter,
        hue=0.0,
        jitter_share=1.0,
        grey_share=0.0,
    )


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """The share of labelled images (label not -1) that are classified right, 0..1, and their number."""
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise ValueError("no labelled images to measure the accuracy on")
    found, _ = predict(model, images[known], next(model.parameters()).device)
    return float((found == labels[known]).mean()), len(known)


def _train(
    name: str,
    network: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    views: ViewsConfig,
    config: TrainingConfig,
    execution: Execution,
    seed: int,
) -> bool:
    """Cross-entropy over views of images drawn with replacement."""
    where = execution.where
    pixels, targets = channels_first(images, where), torch.tensor(labels).to(where)

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(seed, step, name)
        rows = torch.randint(len(pixels), (config.batch_size,), generator=generator).to(where)
        x = random_views(scale(pixels[rows]), views, generator)
        with fast_autocast(where):
            logits = network(x)
        return F.cross_entropy(logits.float(), targets[rows])

    return train_networks(name, {"network": network}, loss_at, config, config.batch_size, execution)


def train_linear(
    encoder: Encoder, features: np.ndarray, labels: np.ndarray, n_classes: int, weight_decay: float = 1e-4
) -> ScanClassifier:
    """Fits a linear head of the labels on an encoder's unit features, by L-BFGS: the encoder stays as it is.

    Args:
        features: float (N,D), of the images by this encoder.
        labels: int64 (N,), 0..K-1.
        weight_decay: Of the head's weights.

    Returns:
        The encoder with the head, in eval mode on the CPU.
    """
    model = ScanClassifier(encoder.to("cpu"), n_classes)
    head = model.head
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    x = model.LENGTH * F.normalize(torch.tensor(features, dtype=torch.float32), dim=1)
    y = torch.tensor(labels)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(head(x), y) + weight_decay * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return model.eval()
