"""Fake-it: tell images from a generator's failures, then measure distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...config import OptimizerConfig
from ...nn.pixels import channels_first, scale
from ..finetuning import encoder_of, features_of, train
from ..interface import Baseline, OnProgress, Reference, check_settings
from ..neighbours import check_neighbours, nearest_squares


class FakeIt(Baseline):
    """A 2-way head from zero on ID images against generated ones; then distances.

    Mirzaei et al. 2022, "Fake It Till You Make It: Towards Accurate Near-Distribution Novelty Detection":
    outliers from a generator stopped early, cross-entropy of ID against outlier, SGD; the score is the sum of
    |f(x) - f(x_i)|^2 over the k = 2 nearest ID images, not the logit. Which images the outliers are is the
    caller's: samples of our own generator before it was trained to the end.
    """

    key, title, needs = "fake_it", "Fake-it", ("images", "encoder", "outliers")

    def __init__(
        self, k: int = 2, epochs: float = 5, learning_rate: float = 1e-2, batch_size: int = 64
    ) -> None:
        """The recipe.

        Args:
            k: Neighbours that count.
            epochs: Over the ID images.
            learning_rate: Of SGD; 4e-4 in the paper, for a pre-trained ViT.
            batch_size: ID images a step, beside as many outliers.
        """
        check_settings(self.key, k=k, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size)
        self.k, self.epochs, self.batch_size = k, epochs, batch_size
        self.optimizer = OptimizerConfig(
            name="sgd", learning_rate=learning_rate, momentum=0.9, weight_decay=5e-5, warmup_steps=0
        )

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Trains a copy of the encoder and keeps the ID features."""
        check_neighbours(self.key, self.k, len(known))
        torch.manual_seed(reference.seed)
        self._encoder = encoder_of(reference)
        head = nn.Linear(self._encoder.feature_dim, 2)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        assert reference.outliers is not None
        pool = channels_first(reference.outliers)

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            drawn = torch.randint(len(pool), (len(x),), generator=generator)
            other = scale(pool[drawn]).to(x.device)
            flip = (torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5).to(x.device)
            other = torch.where(flip, other.flip(3), other)
            logits = head(self._encoder(torch.cat([x, other])))
            is_fake = (torch.arange(2 * len(x), device=x.device) >= len(x)).long()
            return F.cross_entropy(logits.float(), is_fake)

        parts: dict[str, nn.Module] = {"encoder": self._encoder, "head": head}
        # crops and colours would tell the sides apart: half of the outliers mirrored is all that is done
        plain = Reference(
            reference.known, views=None, seed=reference.seed, device=reference.device, encoder=reference.encoder
        )
        train(
            self.key,
            parts,
            known,
            loss,
            plain,
            self.optimizer,
            self.epochs,
            self.batch_size,
            augment=False,
            on_progress=on_progress,
        )
        self._reference = reference
        self._known = features_of(self._encoder, known, reference)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Sums of squared distances, float64 (N,)."""
        features = features_of(self._encoder, queries, self._reference)
        return nearest_squares(self.key, self._known, features, self.k, self._reference.known.ids, ids).sum(1)
