"""Rot: how badly a network names the quarter turns of an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...config import OptimizerConfig
from ...nn.batches import in_batches
from ...nn.device import resolve_device
from ...nn.pixels import scale
from ..finetuning import encoder_of, train
from ..interface import Baseline, BaselineError, OnProgress, Reference, check_settings


class Rot(Baseline):
    """The mean cross-entropy of a 4-way rotation head over the four quarter turns.

    Hendrycks et al. 2019, "Using Self-Supervised Learning Can Improve Model Robustness and Uncertainty":
    sum_r CE(r, p_rot(x turned by r)) / 4, without its translations.
    """

    key, title, needs = "rot", "Rot", ("images", "encoder")

    def __init__(self, epochs: float = 5, learning_rate: float = 1e-3, batch_size: int = 32) -> None:
        """The recipe.

        Args:
            epochs: Over the ID images.
            learning_rate: Of AdamW.
            batch_size: Images a step, each in all four turns.
        """
        check_settings(self.key, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size)
        self.epochs, self.batch_size = epochs, batch_size
        self.optimizer = OptimizerConfig(name="adamw", learning_rate=learning_rate, warmup_steps=20)

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Trains a copy of the encoder under the head."""
        if known.shape[1] != known.shape[2]:
            raise BaselineError(f"{self.key} turns images: they must be square, not {known.shape[1:3]}")
        torch.manual_seed(reference.seed)
        self._encoder, self._device = encoder_of(reference), reference.device
        self._head = nn.Linear(self._encoder.feature_dim, 4)

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            turned, turns = quarter_turns(x)
            return F.cross_entropy(self._head(self._encoder(turned)).float(), turns)

        parts: dict[str, nn.Module] = {"encoder": self._encoder, "head": self._head}
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

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Mean cross-entropies in nats, float64 (N,)."""
        network = nn.Sequential(self._encoder, self._head).to(resolve_device(self._device)).eval()

        def mean_losses(pixels: torch.Tensor) -> list[torch.Tensor]:
            turned, turns = quarter_turns(scale(pixels))
            losses = F.cross_entropy(network(turned).float(), turns, reduction="none")
            return [losses.view(4, -1).mean(0)]

        return in_batches(mean_losses, queries, self._device, 128)[0].astype(np.float64)


def quarter_turns(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All images turned by 0, 90, 180 and 270 degrees.

    Args:
        x: float (N,3,H,H).

    Returns:
        float (4N,3,H,H), all images by the first turn, then by the next; and the turn of each, int64 (4N,).
    """
    turned = torch.cat([torch.rot90(x, turn, (2, 3)) for turn in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))
