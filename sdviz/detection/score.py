"""The OOD score, Eq. 6: distances to the nearest ID images, and votes of outliers among the nearest images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .knn import NeighbourSearch, check_features, unit_length


@dataclass(frozen=True, eq=False)
class Scores:
    """Eq. 6 of N images with their neighbours. Higher is more OOD.

    Attributes:
        total: float64 (N,), `distance` + alpha * `votes`.
        distance: float64 (N,), the sum of the squared distances to the k nearest ID images.
        votes: int64 (N,), number of outliers among the k nearest ID images and outliers, 0..k.
        id_distances: float64 (N,k), Euclidean, not squared, to the nearest ID images, ascending.
        id_indices: int64 (N,k), their rows in the ID set.
        mixed_distances: float64 (N,k), to the nearest of both sets, ascending; at equal distance ID comes
            before outliers, then the earlier row.
        mixed_indices: int64 (N,k), their rows in their own set.
        mixed_is_outlier: bool (N,k), whether that is the outlier set.
    """

    total: np.ndarray
    distance: np.ndarray
    votes: np.ndarray
    id_distances: np.ndarray
    id_indices: np.ndarray
    mixed_distances: np.ndarray
    mixed_indices: np.ndarray
    mixed_is_outlier: np.ndarray


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The K nearest of each set to N images, from which the scores for every k up to K follow.

    Attributes:
        id_distances: float64 (N,K), Euclidean, ascending.
        id_indices: int64 (N,K).
        outlier_distances: float64 (N,K'), K' the smaller of K and the number of outliers; inf in the last
            places of an outlier that skips its own row.
        outlier_indices: int64 (N,K'), -1 there.
    """

    id_distances: np.ndarray
    id_indices: np.ndarray
    outlier_distances: np.ndarray
    outlier_indices: np.ndarray

    def scores(self, k: int, alpha: float) -> Scores:
        """Eq. 6 for k neighbours, 1..K, without another search; ValueError for k or alpha out of range."""
        most = self.id_distances.shape[1]
        if not 1 <= k <= most:
            raise ValueError(f"k = {k} is outside 1..{most}, the number of neighbours searched for")
        _check_alpha(alpha)
        # the sort is stable and ID stands first, so ID wins a tie
        distances = np.concatenate([self.id_distances[:, :k], self.outlier_distances[:, :k]], 1)
        indices = np.concatenate([self.id_indices[:, :k], self.outlier_indices[:, :k]], 1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        is_outlier = order >= k
        distance = (self.id_distances[:, :k] ** 2).sum(1)
        votes = is_outlier.sum(1)
        return Scores(
            distance + alpha * votes,
            distance,
            votes,
            self.id_distances[:, :k],
            self.id_indices[:, :k],
            np.take_along_axis(distances, order, 1),
            np.take_along_axis(indices, order, 1),
            is_outlier,
        )


class SDScore:
    """Eq. 6 over a set of ID images and a set of outliers.

    Example:
        >>> score = SDScore(k=2, alpha=0.5, normalize=False).fit([[0.0], [3.0]], [[1.0]])
        >>> s = score.score([[1.0], [0.0]])
        >>> s.distance.tolist(), s.votes.tolist(), s.total.tolist()
        ([5.0, 9.0], [1, 1], [5.5, 9.5])
    """

    def __init__(self, k: int = 10, alpha: float = 0.3, normalize: bool = True) -> None:
        """Checks the settings of Eq. 6; ValueError if one is out of its range.

        Args:
            k: Neighbours that count, at least 1.
            alpha: Weight of a vote, at least 0.
            normalize: Whether features are scaled to unit length first; one of length 0 stays as it is.
        """
        if k < 1:
            raise ValueError(f"k = {k} is below 1")
        _check_alpha(alpha)
        self.k, self.alpha, self.normalize = k, alpha, normalize
        self._id: NeighbourSearch | None = None
        self._outliers: NeighbourSearch | None = None

    def fit(
        self,
        id_features: np.ndarray,
        outlier_features: np.ndarray | None = None,
        id_ids: np.ndarray | Sequence[str] | None = None,
        outlier_ids: np.ndarray | Sequence[str] | None = None,
        outlier_sources: np.ndarray | Sequence[str] | None = None,
        device: str | torch.device = "auto",
    ) -> SDScore:
        """Prepares the reference features.

        Args:
            id_features: float (N,D), N at least k.
            outlier_features: float (M,D); with None or M = 0 every vote is 0.
            id_ids: str (N,), so that an image of the set is not its own neighbour.
            outlier_ids: str (M,), likewise for an outlier.
            outlier_sources: str (M,), the image that each outlier was made from: its own outliers do not vote
                on that image.

        Raises:
            ValueError: Fewer than k ID images, sets of another D, a NaN or infinity, ids that do not fit.
        """
        known = NeighbourSearch(self._ready("ID features", id_features), id_ids, device)
        if known.n < self.k:
            raise ValueError(f"k = {self.k} neighbours of {known.n} ID images: there are too few")
        outliers = None
        if outlier_features is not None and len(outlier_features):
            names = [np.asarray(one, str) for one in (outlier_ids, outlier_sources) if one is not None]
            skipped = np.stack(names, 1) if names else None
            outliers = NeighbourSearch(self._ready("outlier features", outlier_features), skipped, device)
            if outliers.dim != known.dim:
                raise ValueError(f"outlier features have {outliers.dim} columns and ID features {known.dim}")
        self._id, self._outliers = known, outliers
        return self

    def score(self, features: np.ndarray, ids: np.ndarray | Sequence[str] | None = None) -> Scores:
        """Eq. 6 of some images.

        Args:
            features: float (M,D).
            ids: str (M,); a query whose id is in a set skips that row, in both searches.

        Raises:
            ValueError: Before `fit`; fewer than k ID images besides the query's own; features of another D,
                a NaN or infinity, ids that do not fit.
        """
        return self.search(features, ids).scores(self.k, self.alpha)

    def search(
        self, features: np.ndarray, ids: np.ndarray | Sequence[str] | None = None, k: int | None = None
    ) -> Neighbourhood:
        """The neighbours of images (M,D), for `Neighbourhood.scores` with any k and alpha.

        Args:
            k: The largest k to prepare for; None takes the k of this score.
        """
        if self._id is None:
            raise ValueError("this score has no reference features yet: call fit first")
        rows = self._ready("features", features)
        k = self.k if k is None else k
        id_distances, id_indices = self._id.search(rows, k, ids)
        if self._outliers is None:
            nothing = np.empty((len(rows), 0))
            return Neighbourhood(id_distances, id_indices, nothing, nothing.astype(np.int64))
        return Neighbourhood(id_distances, id_indices, *self._outliers.search(rows, k, ids, fill=True))

    def _ready(self, name: str, features: np.ndarray) -> np.ndarray:
        """float32 (N,D); of unit length with `normalize`."""
        rows = check_features(name, features)
        return unit_length(rows) if self.normalize else rows


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha = {alpha} is not a number from 0 up")
