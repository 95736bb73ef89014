"""ImageSet: images with labels and stable ids, as all of sdviz passes them on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from ..text import LineError, writable
from .found import Found

UNKNOWN_LABEL = -1
OnError: TypeAlias = Literal["raise", "skip"]


class DataError(LineError):
    """A data set that does not exist or cannot be read; the message is one line for the user."""

    def __init__(self, message: object) -> None:
        super().__init__(writable(str(message)))


class MissingDataError(DataError):
    """A data set or split that is not on this machine; the message says how to get it."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels and stable ids."""

    name: str  # the set's name, as given to `sdviz.data.load`
    split: str
    images: np.ndarray  # uint8 (N,H,W,3)
    labels: np.ndarray  # int64 (N,), -1 where unknown
    ids: np.ndarray  # str (N,), the same on every machine and in every run
    class_names: tuple[str, ...]  # of the labels 0, 1, ...; empty if no label is known
    jpeg_share: float | None = None  # the share of JPEG among its files, 0..1; None if unknown, as for arrays
    found: Found = field(default_factory=Found)  # what the source found beside the pictures

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise DataError(
                f"{self.name}: images must be uint8 (N,H,W,3), not {self.images.dtype} {self.images.shape}"
            )
        if self.labels.shape != (n,) or self.ids.shape != (n,):
            raise DataError(f"{self.name}: {n} images, but labels {self.labels.shape} and ids {self.ids.shape}")
        if n and (self.labels.min() < UNKNOWN_LABEL or self.labels.max() >= len(self.class_names)):
            raise DataError(f"{self.name}: a label lies outside -1..{len(self.class_names) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> ImageSet:
        """The same set with only `rows` (int indices or a bool mask), in that order."""
        return replace(self, images=self.images[rows], labels=self.labels[rows], ids=self.ids[rows])

    def label_name(self, row: int) -> str:
        """The class name of one row, or "unlabelled"."""
        label = int(self.labels[row])
        return self.class_names[label] if label >= 0 else "unlabelled"


def short_hash(content: bytes) -> str:
    """The first 12 hex digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def permutation(n: int, seed: int) -> np.ndarray:
    """A permutation of range(n), int64 (n,), fixed by `seed`.

    Sorts by a hash, because the stream of a library's generator may change between versions.
    """
    return np.argsort(hash_numbers(np.arange(n, dtype=np.uint64), seed), kind="stable").astype(np.int64)


def chosen_rows(n: int, limit: int | None, seed: int) -> np.ndarray:
    """The first `limit` rows of `permutation(n, seed)`, int64; None takes all rows in order."""
    return np.arange(n, dtype=np.int64) if limit is None else permutation(n, seed)[:limit]


def hash_numbers(counters: np.ndarray, key: int) -> np.ndarray:
    """Hashes uint64 counters under a key by SplitMix64 (Steele, Lea, Flood 2014): uniform uint64, same shape.

    Uses integer arithmetic only, so the result is the same on every machine and with every numpy.
    """
    with np.errstate(over="ignore"):
        z = counters * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int(key) & 0xFFFFFFFFFFFFFFFF)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
