"""A small image classifier: the clusterer of a bundle whose labels were given."""

from __future__ import annotations

import torch
from torch import nn


class SmallClassifier(nn.Module):
    """Three strided convolution stages, average pooling, one linear layer.

    Attributes:
        config: What `SmallClassifier(**config)` needs to build the same network.
    """

    def __init__(self, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.config = {"n_classes": n_classes, "width": width}
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
