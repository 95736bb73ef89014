"""The interface of all methods: fit to ID images, score other images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..config.nodes import MILD_VIEWS, Node, ViewsConfig
from ..nn.encoder import Encoder
from ..text import LineError

Need: TypeAlias = Literal["features", "images", "logits", "labels", "encoder", "outliers"]
OnProgress: TypeAlias = Callable[[float], None]


class BaselineError(LineError):
    """Settings, images or a reference that a method cannot use; the message is one line."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images as a method needs them; the rest may be None. Lists are converted to arrays.

    Attributes:
        features: float32 (N,D), of the encoder before detector training.
        images: uint8 (N,H,W,3).
        logits: float32 (N,C), of the cluster head.
        ids: str (N,), so that an image of the reference is not its own neighbour.
    """

    features: np.ndarray | None = None
    images: np.ndarray | None = None
    logits: np.ndarray | None = None
    ids: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """The ID images that a method is fitted to.

    Attributes:
        labels: int64 (N,), clusters 0..C-1.
        encoder: The network that gave `known.features`; a method that trains it takes a copy.
        outliers: uint8 (M,H,W,3), made by a generator.
        views: Of the run, which the encoder learned from.
        detector_views: Of our detector's training; None for plain images.
    """

    known: Images
    labels: np.ndarray | None = None
    encoder: Encoder | None = None
    outliers: np.ndarray | None = None
    views: ViewsConfig = ViewsConfig()
    detector_views: ViewsConfig | None = MILD_VIEWS
    seed: int = 0
    device: str = "auto"


class Baseline(ABC):
    """One method. Higher scores are more OOD.

    `fit` and `score` check their arguments, so `_fit` and `_score` of a method need not.

    Attributes:
        needs: The fields of `Reference` and `Images` that it uses; it scores the first.
        training_passes: How often the network sees each ID image in an epoch; 0 without training.
        scoring_passes: How often the network sees each image that is scored.
        search: By setting, the values that `evaluation.tuning` tries.
    """

    class Settings(Node):
        """The method's settings with range and default.

        A method that trains has `epochs`; one that needs outliers has `generator_steps`.
        """

    key: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]
    training_passes: ClassVar[int] = 0
    scoring_passes: ClassVar[int] = 1
    search: ClassVar[Mapping[str, Sequence[object]]] = {}
    settings: Any

    # of one image or feature in `fit`; None before
    _shape: tuple[int, ...] | None = None

    def __init__(self, **settings: object) -> None:
        """Takes settings by name; BaselineError for an unknown name or a bad value."""
        self.settings = _settings(self.key, self.Settings, settings)

    def fit(self, reference: Reference, on_progress: OnProgress | None = None) -> Self:
        """Fits the method to ID images; some methods train a network.

        Args:
            on_progress: Called with the share done, 0..1.

        Raises:
            BaselineError: A part that the method needs is missing, too small, or of a wrong kind or shape.
        """
        self._shape = None
        if not isinstance(reference, Reference):
            raise BaselineError(f"{self.key}: fit takes a Reference, not {type(reference).__name__}")
        known, checked = self._checked(reference)
        self._fit(known, checked, on_progress)
        self._shape = known.shape[1:]
        return self

    def score(self, images: Images) -> np.ndarray:
        """Scores images: float64 (N,), higher is more OOD.

        Raises:
            BaselineError: The method is not fitted, or the part that it scores is missing or of another kind or
                shape than in `fit`.
        """
        if self._shape is None:
            raise BaselineError(f"{self.key} scores nothing before it is fitted: call fit")
        if not isinstance(images, Images):
            raise BaselineError(f"{self.key}: score takes Images, not {type(images).__name__}")
        name = self.needs[0]
        given = getattr(images, name)
        if given is None:
            raise BaselineError(f"{self.key} scores {name}, and there are none")
        queries = _column(self.key, name, given)
        ids = _ids(self.key, images.ids, len(queries))
        if len(queries) == 0:
            return np.empty(0, np.float64)
        if queries.shape[1:] != self._shape:
            raise BaselineError(
                f"{self.key} was fitted on {name} {_of_all(self._shape)}, not {_of_all(queries.shape[1:])}"
            )
        return self._score(queries, ids)

    def _fit(self, known: np.ndarray, reference: Reference, on_progress: OnProgress | None) -> None:  # noqa: B027
        """Fits the method; by default, there is nothing to fit.

        Args:
            known: Features, images or logits of the ID images, whichever the method scores.
            reference: Checked.
        """

    @abstractmethod
    def _score(self, queries: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
        """Scores at least one image of the shape of the ID images."""

    def _checked(self, reference: Reference) -> tuple[np.ndarray, Reference]:
        """The part of the ID images that the method scores, and the reference with its lists as arrays."""
        for need in self.needs:
            holder = reference.known if need in ("features", "images", "logits") else reference
            if getattr(holder, need) is None:
                raise BaselineError(f"{self.key} needs {need}, and there are none")
        name = self.needs[0]
        known = _column(self.key, name, getattr(reference.known, name))
        if len(known) == 0:
            raise BaselineError(f"{self.key}: no ID images to fit on")
        labels, outliers = reference.labels, reference.outliers
        if "labels" in self.needs:
            labels = _labels(self.key, labels, len(known))
        if "outliers" in self.needs:
            outliers = _column(self.key, "images", outliers, "outliers")
            if len(outliers) == 0:
                raise BaselineError(f"{self.key} needs outliers, and there are none")
            if outliers.shape[1:] != known.shape[1:]:
                raise BaselineError(f"{self.key} needs outliers of the shape of the ID images")
        if "encoder" in self.needs and not isinstance(reference.encoder, Encoder):
            kind = type(reference.encoder).__name__
            raise BaselineError(f"{self.key}: the encoder must be a sdviz.nn.encoder.Encoder, not {kind}")
        ids = _ids(self.key, reference.known.ids, len(known))
        return known, replace(
            reference, known=replace(reference.known, ids=ids), labels=labels, outliers=outliers
        )


def _settings(key: str, node: type[Node], given: dict[str, object]) -> Node:
    """Checks the settings of a method; numpy's numbers are allowed."""
    try:
        return node.model_validate({k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise BaselineError(f"{key} has no {name}") from error
        allowed = _allowed(node.model_fields[name]) or first["msg"].removeprefix("Input should be ")
        raise BaselineError(f"{key}: {name} must be {allowed}, not {given[name]!r}") from error


def _allowed(field: FieldInfo) -> str | None:
    """The range of a number in words; None for a setting of another type."""
    if field.annotation not in (int, float):
        return None
    text = "a whole number" if field.annotation is int else "a number"
    for rule in field.metadata:
        match rule:
            case Ge(ge=low):
                text += f", {low} or more"
            case Gt(gt=low):
                text += f" above {low}"
            case Le(le=high):
                text += f", {high} or less"
            case Lt(lt=high):
                text += f" below {high}"
    return text


def _column(key: str, kind: str, given: object, name: str | None = None) -> np.ndarray:
    """Checks images uint8 (N,H,W,3) or finite numbers (N,D); an empty list becomes an array (0,)."""
    name = name or kind
    array = _array(key, name, given)
    if array.shape == (0,):
        return array
    if kind == "images":
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape[1:]:
            raise BaselineError(f"{key}: {name} must be uint8 (N,H,W,3), not {array.dtype} {array.shape}")
        return array
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] == 0:
        raise BaselineError(f"{key}: {name} must be numbers (N,D), not {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise BaselineError(f"{key}: {name} hold NaN or infinite values")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _labels(key: str, given: object, n: int) -> np.ndarray:
    labels = _array(key, "labels", given)
    if labels.dtype.kind not in "iu" or labels.shape != (n,) or labels.min() < 0:
        least = f", the least {labels.min()}" if labels.dtype.kind in "iu" and labels.size else ""
        raise BaselineError(
            f"{key}: labels must be whole numbers ({n},) from 0, not {labels.dtype} {labels.shape}{least}"
        )
    return labels.astype(np.int64)


def _ids(key: str, given: object, n: int) -> np.ndarray | None:
    if given is None:
        return None
    ids = _array(key, "ids", given)
    if ids.shape != (n,) or (n and ids.dtype.kind not in "UO"):
        raise BaselineError(f"{key}: ids must be text ({n},), one for each image, not {ids.dtype} {ids.shape}")
    return ids


def _array(key: str, name: str, given: object) -> np.ndarray:
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths, or a foreign array
        raise BaselineError(f"{key}: {name} cannot be taken as one array ({type(given).__name__})") from error


def _of_all(shape: tuple[int, ...]) -> str:
    return f"(N,{','.join(str(one) for one in shape)})"
