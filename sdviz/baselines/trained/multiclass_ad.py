"""Multi-class AD: fine-tune on cluster labels, drop the head, and measure distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...config import OptimizerConfig
from ..finetuning import encoder_of, features_of, train
from ..interface import Baseline, OnProgress, Reference, check_settings
from ..neighbours import check_neighbours, nearest_squares


class MulticlassAD(Baseline):
    """Fine-tuned with cross-entropy on pseudo-labels; the sum of squared distances to the k = 2 nearest.

    Cohen, Abutbul and Hoshen 2022, "Out-of-Distribution Detection without Class Labels": cross-entropy on SCAN
    labels, then sum_i |f(x) - f(x_i)|^2 over the nearest ID images below the head.
    """

    key, title, needs = "multiclass_ad", "Multi-class AD", ("images", "labels", "encoder")

    def __init__(
        self, k: int = 2, epochs: float = 5, learning_rate: float = 1e-3, batch_size: int = 128
    ) -> None:
        """The recipe.

        Args:
            k: Neighbours that count.
            epochs: Of fine-tuning.
            learning_rate: Of AdamW.
            batch_size: Images a step.
        """
        check_settings(self.key, k=k, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size)
        self.k, self.epochs, self.batch_size = k, epochs, batch_size
        self.optimizer = OptimizerConfig(name="adamw", learning_rate=learning_rate, warmup_steps=20)

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Trains a copy of the encoder and keeps the ID features."""
        check_neighbours(self.key, self.k, len(known))
        labels = torch.tensor(reference.labels)
        torch.manual_seed(reference.seed)
        self._encoder = encoder_of(reference)
        head = nn.Linear(self._encoder.feature_dim, int(labels.max()) + 1)

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            logits = head(self._encoder(x))
            return F.cross_entropy(logits.float(), labels[rows.cpu()].to(logits.device))

        parts: dict[str, nn.Module] = {"encoder": self._encoder, "head": head}
        train(
            self.key,
            parts,
            known,
            loss,
            reference,
            self.optimizer,
            self.epochs,
            self.batch_size,
            on_progress=on_progress,
        )
        self._reference = reference
        self._known = features_of(self._encoder, known, reference)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        features = features_of(self._encoder, queries, self._reference)
        return nearest_squares(self.key, self._known, features, self.k, self._reference.known.ids, ids).sum(1)
