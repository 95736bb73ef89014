"""What every method beside the paper's takes and gives: fit on ID images, score others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from ..config import ViewsConfig
from ..nn.encoder import Encoder

Need: TypeAlias = Literal["features", "images", "logits", "labels", "encoder", "outliers"]
OnProgress: TypeAlias = Callable[[float], None]


class BaselineError(ValueError):
    """A method that cannot be fitted or asked as it was; the message is one line."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images as a method may see them; what it does not need may be None.

    Attributes:
        features: float32 (N,D) of the encoder before any detector training.
        images: uint8 (N,H,W,3).
        logits: float32 (N,C) of the cluster head.
        ids: str (N,), so that an image of the reference is not its own neighbour.
    """

    features: np.ndarray | None = None
    images: np.ndarray | None = None
    logits: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        for one in (self.features, self.images, self.logits):
            if one is not None:
                return len(one)
        return 0


@dataclass(frozen=True, eq=False)
class Reference:
    """What a method is fitted on.

    Attributes:
        known: The ID training images.
        labels: int64 (N,), the cluster of each, 0..C-1.
        encoder: The network that `known.features` come from; a method that trains it takes a copy.
        outliers: uint8 (M,H,W,3), made by some generator.
        views: The augmentation of methods that train.
        seed: Of everything random.
        device: Where to train.
    """

    known: Images
    labels: np.ndarray | None = None
    encoder: Encoder | None = None
    outliers: np.ndarray | None = None
    views: ViewsConfig | None = None
    seed: int = 0
    device: str = "auto"


class Baseline(ABC):
    """One method. Higher scores are more OOD.

    Attributes:
        key: What configurations and tables call it.
        title: What people call it.
        needs: What of a `Reference` and of the images to score it looks at.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]

    @abstractmethod
    def fit(self, reference: Reference, on_progress: OnProgress | None = None) -> Baseline:
        """Takes the ID images in, and trains where the method does.

        Args:
            reference: With all that `needs` names.
            on_progress: Told the share done, 0..1.

        Returns:
            Itself.

        Raises:
            BaselineError: Something that it needs is missing, or too little.
        """

    @abstractmethod
    def score(self, images: Images) -> np.ndarray:
        """Scores, float64 (N,), higher for more OOD.

        Raises:
            BaselineError: Before `fit`, or without what it needs.
        """

    def check(self, reference: Reference) -> None:
        """Raises BaselineError, naming what is missing, where the reference lacks something."""
        given = {
            "features": reference.known.features,
            "images": reference.known.images,
            "logits": reference.known.logits,
            "labels": reference.labels,
            "encoder": reference.encoder,
            "outliers": reference.outliers,
        }
        for need in self.needs:
            if given[need] is None:
                raise BaselineError(f"{self.key} needs {need}, and there are none")
        if len(reference.known) == 0:
            raise BaselineError(f"{self.key}: no ID images to fit on")
        features = reference.known.features
        if "features" in self.needs and features is not None and not np.isfinite(features).all():
            raise BaselineError(f"{self.key}: features hold NaN or infinite values")


def wanted(method: Baseline, name: str, column: np.ndarray | None) -> np.ndarray:
    """A column of `Images` that a method cannot do without.

    Raises:
        BaselineError: It is None, or not finite.
    """
    if column is None:
        raise BaselineError(f"{method.key} scores {name}, and there are none")
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        raise BaselineError(f"{method.key}: {name} hold NaN or infinite values")
    return column
