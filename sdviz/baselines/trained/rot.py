"""Rot: how badly a network predicts the quarter turns of an image."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ...nn.batches import in_batches
from ...nn.device import resolve_device
from ...nn.pixels import scale
from ..finetuning import ADAMW, Trained
from ..interface import BaselineError, OnProgress, Reference


class Rot(Trained):
    """Trains a 4-way rotation head; the score is its mean cross-entropy over the four quarter turns.

    Hendrycks et al. 2019, "Using Self-Supervised Learning Can Improve Model Robustness and Uncertainty":
    sum_r CE(r, p_rot(x turned by r)) / 4, without its translations.
    """

    key, title, needs = "rot", "Rot", ("images", "encoder")
    training_passes, scoring_passes = 4, 4
    base_optimizer = ADAMW
    search: ClassVar = Trained.search | {"learning_rate": (1e-4, 3e-4, 1e-3)}

    class Settings(Trained.Settings):
        learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
        batch_size: int = Field(32, ge=2, description="images a step, each in all four turns")

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:
        """Trains a copy of the encoder under the head."""
        if known.shape[1] != known.shape[2]:
            raise BaselineError(f"{self.key} turns images: they must be square, not {known.shape[1:3]}")
        self._start(reference)
        self._device = reference.device
        self._head = nn.Linear(self._encoder.feature_dim, 4)

        def loss(rows: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            turned, turns = quarter_turns(x)
            return F.cross_entropy(self._head(self._encoder(turned)).float(), turns)

        self._train({"head": self._head}, known, loss, reference, on_progress)

    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Mean cross-entropies in nats, float64 (N,)."""
        network = nn.Sequential(self._encoder, self._head).to(resolve_device(self._device)).eval()

        def mean_losses(pixels: torch.Tensor) -> list[torch.Tensor]:
            turned, turns = quarter_turns(scale(pixels))
            losses = F.cross_entropy(network(turned).float(), turns, reduction="none")
            return [losses.view(4, -1).mean(0)]

        return in_batches(mean_losses, queries, self._device, 128)[0].astype(np.float64)


def quarter_turns(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns images (N,3,H,H) by each quarter turn: (4N,3,H,H), and the turn of each, int64 (4N,), 0..3."""
    turned = torch.cat([torch.rot90(x, turn, (2, 3)) for turn in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))
