"""MSCL: contrast views around the centre of ID images, then score by distance."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ...config.nodes import ViewsConfig
from ...nn.losses import nt_xent
from ...nn.views import random_views
from ..finetuning import SGD, FineTuned, Loss
from ..interface import BaselineError, Reference


class MSCL(FineTuned):
    """Trains by the mean-shifted contrastive loss; then scores by the k = 2 nearest ID features of unit length.

    Reiss and Hoshen 2023, "Mean-Shifted Contrastive Loss for Anomaly Detection": NT-Xent with temperature 0.25
    of theta(x) = (f(x) - c) / |f(x) - c|, where f are unit features and c is the centre of the ID features.
    """

    key, title, needs = "mscl", "MSCL", ("images", "encoder")
    training_passes = 2
    base_optimizer = SGD
    augment = False
    unit_features = True

    class Settings(FineTuned.Settings):
        temperature: float = Field(0.25, gt=0, description="tau")
        learning_rate: float = Field(1e-4, gt=0, description="of SGD")
        batch_size: int = Field(64, ge=2, description="images a step, each in two views")
        frozen_blocks: int = Field(1, ge=0, description="first blocks of the encoder that are not trained")

    def _objective(self, known: np.ndarray, reference: Reference) -> tuple[dict[str, nn.Module], Loss]:
        self._encoder.freeze(min(self.settings.frozen_blocks, len(self._encoder.blocks)))
        if not any(one.requires_grad for one in self._encoder.parameters()):
            raise BaselineError(
                f"{self.key}: frozen_blocks {self.settings.frozen_blocks} leaves nothing to train"
            )
        centre = torch.tensor(self._features(known, reference.device).mean(0))
        views = reference.views or ViewsConfig()

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            both = torch.cat([random_views(x, views, generator), random_views(x, views, generator)])
            features = self._encoder(both).float()
            return mean_shifted_loss(features, centre.to(x.device), self.settings.temperature)

        return {}, loss


def mean_shifted_loss(features: torch.Tensor, centre: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent about a centre (D,) of features (2N,D): the first view of each image, then the second."""
    first, second = (F.normalize(features, dim=1) - centre).chunk(2)
    return nt_xent(first, second, temperature)
