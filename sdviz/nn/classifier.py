"""Networks that name the cluster of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .encoder import Encoder


class SmallClassifier(nn.Module):
    """Three strided convolution stages, average pooling, one linear layer: learns given labels.

    Attributes:
        config: What `build_classifier` needs to build the same network.
    """

    def __init__(self, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"n_classes": n_classes, "width": width}
        layers: list[nn.Module] = []
        channels = 3
        for out in (width, 2 * width, 4 * width):
            layers += [
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
                nn.Conv2d(out, out, 3, padding=1, stride=2, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
            ]
            channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class logits, float (N,C), of images float (N,3,H,W) in [-1,1]."""
        return self.head(self.body(x).mean(dim=(2, 3)))


class ScanClassifier(nn.Module):
    """An encoder and one linear head: what SCAN trains.

    Attributes:
        config: What `build_classifier` needs to build the same network.
    """

    def __init__(self, encoder: Encoder, n_classes: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"n_classes": n_classes} | encoder.config
        self.encoder = encoder
        self.head = nn.Linear(encoder.feature_dim, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cluster logits, float (N,C), of images float (N,3,H,W) in [-1,1]."""
        return self.head(self.encoder(x))


Classifier = SmallClassifier | ScanClassifier


def build_classifier(config: dict[str, Any]) -> Classifier:
    """An untrained classifier of that `config`: a `ScanClassifier` where it names an encoder's arch.

    Raises:
        TypeError, ValueError: Not a classifier's configuration.
    """
    if "arch" not in config:
        return SmallClassifier(**config)
    rest = dict(config)
    n_classes = rest.pop("n_classes")
    return ScanClassifier(Encoder(**rest), n_classes)
