"""Networks that name the cluster of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .encoder import Encoder


class SmallClassifier(nn.Module):
    """Three strided convolution stages, average pooling, one linear layer: learns given labels.

    Attributes:
        config: `build_classifier(config)` builds the same network.
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


class Projection(nn.Sequential):
    """The two-layer head under SimCLR's loss; neighbours and clusters are searched in its outputs."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        self.config = {"dim": dim, "hidden": hidden, "out": out}
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out))


class ScanClassifier(nn.Module):
    """SCAN's network: an encoder, SimCLR's projection if there is one, and one linear head.

    Attributes:
        config: `build_classifier(config)` builds the same network.
    """

    # of the features before the linear head; acts as a temperature of 1 / 10
    LENGTH = 10.0

    def __init__(self, encoder: Encoder, n_classes: int, projection: Projection | None = None) -> None:
        super().__init__()
        sizes = {} if projection is None else projection.config
        self.config: dict[str, Any] = {"n_classes": n_classes} | encoder.config
        self.config |= {"projection_hidden": sizes.get("hidden"), "projection_dim": sizes.get("out")}
        self.encoder = encoder
        self.projection = projection
        self.head = nn.Linear(sizes.get("out", encoder.feature_dim), n_classes)

    def keep_classes(self, kept: torch.Tensor) -> None:
        """Removes all classes but `kept`, int64 (K,) ascending, which become 0..K-1."""
        head = nn.Linear(self.head.in_features, len(kept))
        head.load_state_dict({key: value[kept] for key, value in self.head.state_dict().items()})
        self.head, self.config = head, self.config | {"n_classes": len(kept)}

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """The head's inputs, float (N,P) of length 10, of images float (N,3,H,W) in [-1,1]."""
        return self.embed_features(self.encoder(x))

    def embed_features(self, z: torch.Tensor) -> torch.Tensor:
        """As `embed`, of the encoder's features float (N,D)."""
        if self.projection is not None:
            z = self.projection(z)
        return self.LENGTH * F.normalize(z.float(), dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cluster logits, float (N,C), of images float (N,3,H,W) in [-1,1]."""
        return self.head(self.embed(x))


Classifier = SmallClassifier | ScanClassifier


def build_classifier(config: dict[str, Any]) -> Classifier:
    """An untrained classifier of that `config`; one with an encoder has the key "arch"."""
    if "arch" not in config:
        return SmallClassifier(**config)
    rest = dict(config)
    n_classes = rest.pop("n_classes")
    hidden, out = rest.pop("projection_hidden", None), rest.pop("projection_dim", None)
    encoder = Encoder(**rest)
    projection = None if hidden is None or out is None else Projection(encoder.feature_dim, hidden, out)
    return ScanClassifier(encoder, n_classes, projection)
