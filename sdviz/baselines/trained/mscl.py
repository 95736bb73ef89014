"""MSCL: contrast views about the centre of ID images, then measure distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...config import OptimizerConfig, ViewsConfig
from ...detection.knn import unit_length
from ...nn.losses import nt_xent
from ...nn.views import random_views
from ..finetuning import encoder_of, features_of, train
from ..interface import Baseline, BaselineError, OnProgress, Reference, check_settings
from ..neighbours import check_neighbours, nearest_squares


class MSCL(Baseline):
    """Mean-shifted contrastive loss; the sum of squared distances between unit features to the k = 2 nearest.

    Reiss and Hoshen 2023, "Mean-Shifted Contrastive Loss for Anomaly Detection": theta(x) = (f(x) - c) /
    |f(x) - c| of unit features f about the centre c of those of ID images, NT-Xent with temperature 0.25.
    """

    key, title, needs = "mscl", "MSCL", ("images", "encoder")

    def __init__(
        self,
        k: int = 2,
        temperature: float = 0.25,
        epochs: float = 5,
        learning_rate: float = 1e-4,
        batch_size: int = 64,
        frozen_blocks: int = 1,
    ) -> None:
        """The recipe.

        Args:
            k: Neighbours that count.
            temperature: tau.
            epochs: Of fine-tuning.
            learning_rate: Of SGD.
            batch_size: Images a step, each in two views.
            frozen_blocks: Early blocks of the encoder that stay as they are.
        """
        check_settings(
            self.key,
            k=k,
            temperature=temperature,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            frozen_blocks=frozen_blocks,
        )
        self.k, self.temperature, self.epochs, self.batch_size = k, temperature, epochs, batch_size
        self.frozen_blocks = frozen_blocks
        self.optimizer = OptimizerConfig(
            name="sgd", learning_rate=learning_rate, momentum=0.9, weight_decay=5e-5, warmup_steps=0
        )

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Trains a copy of the encoder and keeps the ID features."""
        check_neighbours(self.key, self.k, len(known))
        torch.manual_seed(reference.seed)
        self._encoder = encoder_of(reference)
        self._encoder.freeze(min(self.frozen_blocks, len(self._encoder.blocks)))
        if not any(one.requires_grad for one in self._encoder.parameters()):
            raise BaselineError(f"{self.key}: frozen_blocks {self.frozen_blocks} leaves nothing to train")
        centre = torch.tensor(unit_length(features_of(self._encoder, known, reference)).mean(0))
        views = reference.views or ViewsConfig()

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            both = torch.cat([random_views(x, views, generator), random_views(x, views, generator)])
            return mean_shifted_loss(self._encoder(both).float(), centre.to(x.device), self.temperature)

        parts: dict[str, nn.Module] = {"encoder": self._encoder}
        train(
            self.key,
            parts,
            known,
            loss,
            reference,
            self.optimizer,
            self.epochs,
            self.batch_size,
            augment=False,
            on_progress=on_progress,
        )
        self._reference = reference
        self._known = unit_length(features_of(self._encoder, known, reference))

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        features = unit_length(features_of(self._encoder, queries, self._reference))
        return nearest_squares(self.key, self._known, features, self.k, self._reference.known.ids, ids).sum(1)


def mean_shifted_loss(features: torch.Tensor, centre: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of features about a centre.

    Args:
        features: float (2N,D): one view of each image, then the other.
        centre: float (D,), the mean of the ID images' unit features.
        temperature: tau.

    Returns:
        The mean over all 2N views, a scalar.
    """
    first, second = (F.normalize(features, dim=1) - centre).chunk(2)
    return nt_xent(first, second, temperature)
