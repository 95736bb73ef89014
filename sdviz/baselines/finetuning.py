"""The methods that train a copy of the encoder share one training; each has a loss of its own."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import nn

from ..config.nodes import OptimizerConfig, TrainingConfig, ViewsConfig
from ..nn.device import fast_autocast, resolve_device
from ..nn.encoder import Encoder
from ..nn.feature_cache import fresh_features
from ..nn.loop import Execution, train_networks
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views
from .interface import Baseline, BaselineError, OnProgress, Reference
from .neighbours import NearestSquares, check_neighbours

# (rows of the images, views of them in [-1,1], the generator of the step) -> the loss
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]

SGD = OptimizerConfig(name="sgd", weight_decay=5e-5)
ADAMW = OptimizerConfig(name="adamw", warmup_steps=20)
# only mirrored, half of the time
FLIP = ViewsConfig(area=(1.0, 1.0), max_shift=0.0, jitter_share=0.0, grey_share=0.0)

Epochs = Annotated[float, Field(gt=0, description="over the ID images")]
FrozenBlocks = Annotated[int, Field(ge=0, description="first blocks of the encoder that are not trained")]
Views = Annotated[
    Literal["run", "detector", "flip"],
    Field(description="random views of images: the run's, the detector's, or only mirrored"),
]


class Trained(Baseline):
    """A method that trains a copy of the encoder.

    Its settings have `learning_rate` and `batch_size`, too.

    Attributes:
        base_optimizer: The optimizer; its learning rate comes from the settings.
        augment: Whether the loss gets random views of the images, or the images themselves.
    """

    class Settings(Baseline.Settings):
        """What our detector can choose, each of these methods can."""

        epochs: Epochs = 5.0
        frozen_blocks: FrozenBlocks = 0
        views: Views = "run"

    base_optimizer: ClassVar[OptimizerConfig]
    augment: ClassVar[bool] = True
    search: ClassVar = {"views": ("run", "detector")}

    _encoder: Encoder
    _views: ViewsConfig | None
    _networks: nn.ModuleDict
    _given: Mapping[str, torch.Tensor] | None = None

    def fit(
        self,
        reference: Reference,
        on_progress: OnProgress | None = None,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> Self:
        """As `Baseline.fit`; with the `weights` of an earlier fit to the same reference nothing is trained."""
        self._given = weights
        return super().fit(reference, on_progress)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The weights of encoder and heads after `fit`."""
        return {name: tensor.cpu().contiguous() for name, tensor in self._networks.state_dict().items()}

    @property
    def optimizer(self) -> OptimizerConfig:
        """The optimizer with the learning rate of the settings."""
        return self.base_optimizer.model_copy(update={"learning_rate": self.settings.learning_rate})

    def _start(self, reference: Reference) -> None:
        """Seeds the first weights of heads, copies the encoder, freezes its blocks, chooses the views."""
        torch.manual_seed(reference.seed)
        assert reference.encoder is not None
        self._encoder = copy.deepcopy(reference.encoder).to("cpu")
        n_blocks, n_frozen = len(self._encoder.blocks), self.settings.frozen_blocks
        if n_frozen > n_blocks:
            raise BaselineError(f"{self.key}: frozen_blocks {n_frozen}: the encoder has {n_blocks} blocks")
        self._encoder.requires_grad_(True)
        self._encoder.freeze(n_frozen)
        views = {"run": reference.views, "detector": reference.detector_views, "flip": FLIP}
        self._views = views[self.settings.views]

    def _train(
        self,
        heads: Mapping[str, nn.Module],
        images: np.ndarray,
        batch_loss: Loss,
        reference: Reference,
        on_progress: OnProgress | None,
    ) -> None:
        """Trains the encoder and its heads in place, or takes their weights; then they are in eval mode.

        Args:
            heads: By name; with the encoder, all parameters with `requires_grad` are trained.
            images: uint8 (N,H,W,3); each step draws a batch of different ones.
            batch_loss: Called under autocast where the device has bfloat16.
        """
        self._networks = nn.ModuleDict({"encoder": self._encoder, **heads})
        if self._given is not None:
            self._networks.load_state_dict(self._given)
            self._networks.eval()
            return
        where = resolve_device(reference.device)
        pixels = channels_first(images, where)
        batch = min(self.settings.batch_size, len(pixels))
        total_steps = max(1, round(self.settings.epochs * len(pixels) / batch))
        config = TrainingConfig(total_steps=total_steps, optimizer=self.optimizer)

        def loss_at(step: int) -> torch.Tensor:
            generator = step_generator(reference.seed, step, self.key)
            rows = torch.randperm(len(pixels), generator=generator)[:batch].to(where)
            x = scale(pixels[rows])
            if self.augment:
                x = random_views(x, self._views, generator)
            with fast_autocast(where):
                return batch_loss(rows, x, generator)

        def after_step(step: int) -> None:
            if on_progress is not None:
                on_progress(step / total_steps)

        networks = dict(self._networks.items())
        train_networks(self.key, networks, loss_at, config, batch, Execution(reference.device), after_step)


class FineTuned(Trained, NearestSquares):
    """Trains a copy of the encoder; the score is the sum of squared distances to the k nearest ID features."""

    class Settings(Trained.Settings, NearestSquares.Settings):
        """The settings that all of these methods have."""

    search: ClassVar = Trained.search | {"k": (2, 10, 50), "normalize": (False, True)}

    @abstractmethod
    def _objective(self, known: np.ndarray, reference: Reference) -> tuple[dict[str, nn.Module], Loss]:
        """The heads over `_encoder` by name, and the loss of a batch."""

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Trains a copy of the encoder and keeps the ID features."""
        check_neighbours(self.key, self.settings.k, len(known))
        self._start(reference)
        heads, batch_loss = self._objective(known, reference)
        self._train(heads, known, batch_loss, reference, on_progress)
        self._device = reference.device
        self._keep(fresh_features(self._encoder, known, self._device), reference.known.ids)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        return self._sums(fresh_features(self._encoder, queries, self._device), ids)
