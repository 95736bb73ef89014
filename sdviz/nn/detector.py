"""The detector: an encoder f under three linear heads, Eq. 4-5."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .batches import in_batches
from .classifier import ScanClassifier
from .device import resolve_device
from .encoder import Encoder
from .pixels import scale


class DetectorOutputs(NamedTuple):
    """The detector's outputs for N images, as tensors or as float32 arrays.

    Attributes:
        features: (N,D), f.
        g_bin: (N,2), logits of ID and outlier.
        g_in: (N,C), cluster logits for ID images.
        g_out: (N,C), cluster logits for outliers.
    """

    features: Any
    g_bin: Any
    g_in: Any
    g_out: Any


class Detector(nn.Module):
    """f, g_bin, g_in and g_out.

    Attributes:
        config: `Detector(Encoder(**encoder), n_clusters, unit_features=unit_features)` of its values builds the
            same network.
        frozen_batch_norm: Whether the encoder's batch norms stay in eval mode while it is trained.
    """

    def __init__(
        self, encoder: Encoder, n_clusters: int, zero_heads: bool = True, unit_features: bool = False
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "encoder": encoder.config,
            "n_clusters": n_clusters,
            "unit_features": unit_features,
        }
        self.unit_features = unit_features
        self.encoder = encoder
        self.feature_dim = encoder.feature_dim
        self.frozen_batch_norm = False
        self.g_bin = nn.Linear(self.feature_dim, 2)
        self.g_in = nn.Linear(self.feature_dim, n_clusters)
        self.g_out = nn.Linear(self.feature_dim, n_clusters)
        if zero_heads:
            for head in (self.g_bin, self.g_in, self.g_out):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)

    def forward(self, x: torch.Tensor) -> DetectorOutputs:
        """Features and logits of images float (N,3,H,W) in [-1,1]."""
        return self.heads(self.encoder(x))

    def train(self, mode: bool = True) -> Detector:
        """As `nn.Module.train`; frozen batch norms stay in eval mode."""
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def heads(self, features: torch.Tensor) -> DetectorOutputs:
        """The same features, float (N,D), with their logits.

        With `unit_features` the heads see all features at one length: only directions can be learned, and
        these are what distances of unit features compare.
        """
        x = ScanClassifier.LENGTH * F.normalize(features.float(), dim=1) if self.unit_features else features
        return DetectorOutputs(features, self.g_bin(x), self.g_in(x), self.g_out(x))


def detector_outputs(
    detector: Detector, images: np.ndarray, device: str | torch.device = "auto"
) -> DetectorOutputs:
    """Runs a detector in eval mode over images uint8 (N,H,W,3); it stays on the device."""
    detector = detector.to(resolve_device(device)).eval()
    return DetectorOutputs(*in_batches(lambda pixels: detector(scale(pixels)), images, device, 256))
