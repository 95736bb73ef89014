"""Multi-class AD: fine-tune on cluster labels, drop the head, then score by distance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ..finetuning import ADAMW, FineTuned, Loss
from ..interface import Reference


class MulticlassAD(FineTuned):
    """Fine-tunes on pseudo-labels; the score is the sum of squared distances to the k = 2 nearest ID features.

    Cohen, Abutbul and Hoshen 2022, "Out-of-Distribution Detection without Class Labels": cross-entropy on SCAN
    labels, then sum_i |f(x) - f(x_i)|^2 over the nearest ID images below the head.
    """

    key, title, needs = "multiclass_ad", "Multi-class AD", ("images", "labels", "encoder")
    training_passes = 1
    base_optimizer = ADAMW
    search: ClassVar = FineTuned.search | {"learning_rate": (1e-4, 3e-4, 1e-3)}

    class Settings(FineTuned.Settings):
        learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
        batch_size: int = Field(128, ge=2, description="images a step")

    def _objective(self, known: np.ndarray, reference: Reference) -> tuple[dict[str, nn.Module], Loss]:
        labels = torch.tensor(reference.labels)
        head = nn.Linear(self._encoder.feature_dim, int(labels.max()) + 1)

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            logits = head(self._encoder(x))
            return F.cross_entropy(logits.float(), labels[rows.cpu()].to(logits.device))

        return {"head": head}, loss
