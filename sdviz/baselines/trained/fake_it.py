"""Fake-it: train to tell ID images from a poor generator's, then score by distance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ...nn.pixels import channels_first, scale
from ...nn.views import random_views
from ..finetuning import SGD, FineTuned, Loss, Views
from ..interface import Reference


class FakeIt(FineTuned):
    """Trains a 2-way head, zero at first, on ID against generated images; then scores by distance.

    Mirzaei et al. 2022, "Fake It Till You Make It: Towards Accurate Near-Distribution Novelty Detection":
    outliers from a generator stopped early, cross-entropy of ID against outlier, SGD; the score is the sum of
    |f(x) - f(x_i)|^2 over the k = 2 nearest ID images, not the logit. A run makes the outliers with a U-Net of
    its own, trained for `generator_steps` only.
    """

    key, title, needs = "fake_it", "Fake-it", ("images", "encoder", "outliers")
    training_passes = 2
    base_optimizer = SGD
    search: ClassVar = FineTuned.search | {
        "learning_rate": (1e-3, 3e-3, 1e-2),
        "views": ("flip", "detector", "run"),
    }
    # views are made of both sides at once, below
    augment = False

    class Settings(FineTuned.Settings):
        learning_rate: float = Field(1e-2, gt=0, description="of SGD; 4e-4 in the paper, for a pre-trained ViT")
        batch_size: int = Field(64, ge=2, description="ID images a step, with as many outliers")
        views: Views = "flip"
        generator_steps: int = Field(
            300, ge=1, description="training steps of the U-Net that makes the outliers"
        )

    def _objective(self, known: np.ndarray, reference: Reference) -> tuple[dict[str, nn.Module], Loss]:
        head = nn.Linear(self._encoder.feature_dim, 2)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        assert reference.outliers is not None
        pool = channels_first(reference.outliers)

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            drawn = torch.randint(len(pool), (len(x),), generator=generator)
            both = torch.cat([x, scale(pool[drawn]).to(x.device)])
            logits = head(self._encoder(random_views(both, self._views, generator)))
            is_fake = (torch.arange(2 * len(x), device=x.device) >= len(x)).long()
            return F.cross_entropy(logits.float(), is_fake)

        return {"head": head}, loss
