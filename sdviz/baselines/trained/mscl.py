"""MSCL: contrast views around the centre of ID images, then score by distance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ...detection.knn import unit_length
from ...nn.batches import encode
from ...nn.losses import nt_xent
from ...nn.views import random_views
from ..finetuning import SGD, FineTuned, FrozenBlocks, Loss
from ..interface import BaselineError, Reference
from ..neighbours import Normalize


class MSCL(FineTuned):
    """Trains by the mean-shifted contrastive loss; then scores by the k = 2 nearest ID features of unit length.

    Reiss and Hoshen 2023, "Mean-Shifted Contrastive Loss for Anomaly Detection": NT-Xent with temperature 0.25
    of theta(x) = (f(x) - c) / |f(x) - c|, where f are unit features and c is the centre of the ID features.
    """

    key, title, needs = "mscl", "MSCL", ("images", "encoder")
    training_passes = 2
    base_optimizer = SGD
    search: ClassVar = FineTuned.search | {"learning_rate": (1e-5, 3e-5, 1e-4)}
    augment = False

    class Settings(FineTuned.Settings):
        temperature: float = Field(0.25, gt=0, description="tau")
        learning_rate: float = Field(1e-4, gt=0, description="of SGD")
        batch_size: int = Field(64, ge=2, description="images a step, each in two views")
        frozen_blocks: FrozenBlocks = 1
        normalize: Normalize = True

    def _objective(self, known: np.ndarray, reference: Reference) -> tuple[dict[str, nn.Module], Loss]:
        if not any(one.requires_grad for one in self._encoder.parameters()):
            raise BaselineError(
                f"{self.key}: frozen_blocks {self.settings.frozen_blocks} leaves nothing to train"
            )
        centre = torch.tensor(unit_length(encode(self._encoder, known, reference.device)).mean(0))

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            both = torch.cat([random_views(x, self._views, generator) for _ in range(2)])
            features = self._encoder(both).float()
            return mean_shifted_loss(features, centre.to(x.device), self.settings.temperature)

        return {}, loss


def mean_shifted_loss(features: torch.Tensor, centre: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent about a centre (D,) of features (2N,D): the first view of each image, then the second."""
    first, second = (F.normalize(features, dim=1) - centre).chunk(2)
    return nt_xent(first, second, temperature)
