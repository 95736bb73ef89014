"""The training that several methods share: a copy of the encoder, one loop, and a loss of each method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ..config.nodes import OptimizerConfig, TrainingConfig, ViewsConfig
from ..detection.knn import unit_length
from ..nn.batches import encode
from ..nn.device import fast_autocast, resolve_device
from ..nn.encoder import Encoder
from ..nn.loop import Execution, train_networks
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views
from .interface import Baseline, OnProgress, Reference
from .neighbours import nearest_squares

# (rows of the images, views of them in [-1,1], the generator of the step) -> the loss
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]


SGD = OptimizerConfig(name="sgd", weight_decay=5e-5)
ADAMW = OptimizerConfig(name="adamw", warmup_steps=20)


def encoder_of(reference: Reference) -> Encoder:
    """A copy of the reference's encoder with all of its weights trainable."""
    assert reference.encoder is not None
    encoder = copy.deepcopy(reference.encoder).to("cpu")
    encoder.freeze(0)
    return encoder.requires_grad_(True)


def train(
    method: Trained,
    parts: Mapping[str, nn.Module],
    images: np.ndarray,
    make_loss: Loss,
    reference: Reference,
    augment: bool = True,
    on_progress: OnProgress | None = None,
) -> None:
    """Trains networks in place by a method's settings, then puts them on the CPU and in eval mode.

    Args:
        method: Has `epochs` and `batch_size` among its settings.
        parts: The networks by name; all parameters with `requires_grad` are trained.
        images: uint8 (N,H,W,3); each step draws a batch of different ones.
        make_loss: Gives the loss of a batch; called under autocast where the device has bfloat16.
        augment: Whether the loss gets random views of the images, or the images themselves.
    """
    where = resolve_device(reference.device)
    pixels = channels_first(images, where)
    views = reference.views or ViewsConfig()
    batch = min(method.settings.batch_size, len(pixels))
    total_steps = max(1, round(method.settings.epochs * len(pixels) / batch))
    config = TrainingConfig(total_steps=total_steps, optimizer=method.optimizer)

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(reference.seed, step, method.key)
        rows = torch.randperm(len(pixels), generator=generator)[:batch].to(where)
        x = scale(pixels[rows])
        if augment:
            x = random_views(x, views, generator)
        with fast_autocast(where):
            return make_loss(rows, x, generator)

    def after_step(step: int) -> None:
        if on_progress is not None:
            on_progress(step / total_steps)

    train_networks(method.key, parts, loss_at, config, batch, Execution(reference.device), after_step)


class Trained(Baseline):
    """A method that trains a copy of the encoder; it has `learning_rate` among its settings.

    Attributes:
        base_optimizer: The optimizer, but for its learning rate.
    """

    base_optimizer: ClassVar[OptimizerConfig]

    _encoder: Encoder

    @property
    def optimizer(self) -> OptimizerConfig:
        """The optimizer with the rate of the settings."""
        return self.base_optimizer.model_copy(update={"learning_rate": self.settings.learning_rate})


class FineTuned(Trained):
    """A method that trains a copy of the encoder, then sums the squared distances to the k nearest ID features.

    Attributes:
        unit_features: Whether features are brought to length 1 first.
    """

    unit_features: ClassVar[bool] = False

    def _features(self, images: np.ndarray, device: str) -> np.ndarray:
        """Features float32 (N,D) of images uint8 (N,H,W,3)."""
        features = encode(self._encoder, images, device)
        return unit_length(features) if self.unit_features else features

    def _keep(self, known: np.ndarray, reference: Reference) -> None:
        """Ends `_fit`: keeps the features of the ID images, from the trained encoder."""
        self._ids, self._device = reference.known.ids, reference.device
        self._known = self._features(known, self._device)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        features = self._features(queries, self._device)
        return nearest_squares(self.key, self._known, features, self.settings.k, self._ids, ids).sum(1)
