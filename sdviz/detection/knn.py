"""Exact nearest neighbours by Euclidean distance: faiss on the CPU, torch on CUDA.

Both find candidates by |q|^2 + |r|^2 - 2 <q, r> in float32, which is fast but inexact for small distances: up
to 1e-3 between near-duplicates of unit length. So a few more candidates than requested are taken, and their
distances computed again in float64 from the differences. If rounding may have missed a nearer reference, more
are taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import faiss
import numpy as np
import torch

from ..nn.device import resolve_device

SPARE_CANDIDATES = 8
WIDER = 16  # factor by which the second attempt takes more candidates
# error of the fast form in float32 roundings of (|q| + |r|)^2; at most 4 were seen up to D = 3072
MAX_ROUNDINGS = 8
QUERIES_AT_ONCE = 4096
# float64 bytes of differences at a time: on the CPU they stay in the cache
DIFFERENCES_BYTES = {"cpu": 2**20, "cuda": 2**28}
ALL_PAIRS = 2**22  # distances at a time if queries are compared with every reference
CUDA_MATRIX_BYTES = 2**29  # of the float32 distances of some queries to all references


class NeighbourSearch:
    """Searches the nearest of some references."""

    def __init__(
        self,
        references: np.ndarray,
        ids: np.ndarray | Sequence[str] | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        """Prepares the references.

        Args:
            references: float (N,D); float32 is not copied.
            ids: str (N,), or (N,P) for several of each; a query with one of them as its id skips the row.
            device: Where to search; the CPU instead of MPS, which has no float64.

        Raises:
            ValueError: Not one row for each reference, a NaN or infinity, or ids that do not fit.
        """
        where = resolve_device(device)
        self._device = where if where.type == "cuda" else torch.device("cpu")
        rows = check_features("references", references)
        self.n, self.dim = rows.shape
        if ids is not None and len(ids) != self.n:
            raise ValueError(f"references: {self.n} rows and {len(ids)} ids")
        self._id_names, self._id_codes = None, torch.empty(0, dtype=torch.int64)
        if ids is not None:
            names = np.asarray(ids, str).reshape(self.n, -1)
            self._id_names, codes = np.unique(names, return_inverse=True)
            # at least the number of rows with a name: a row that has it twice counts twice
            self._id_counts = np.bincount(codes.ravel())
            self._id_codes = torch.from_numpy(codes.reshape(names.shape)).to(self._device)
        self._rows = torch.from_numpy(rows).to(self._device)
        # centred and scaled to at most 1, where the fast form is most exact and cannot overflow; by a power of
        # 2, so that no bit is lost
        largest = float(self._rows.abs().max()) if self.n else 0.0
        self._scale = 2.0 ** -math.frexp(largest)[1]
        self._centre = self._rows.mean(0, dtype=torch.float64) if self.n else torch.zeros(self.dim)
        self._centre = (self._centre * self._scale).float()
        self._moved = self._move(self._rows)
        self._squares = (self._moved**2).sum(1) if self._device.type == "cuda" else None

    def search(
        self,
        queries: np.ndarray,
        k: int,
        ids: np.ndarray | Sequence[str] | None = None,
        fill: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest references of each query.

        Args:
            queries: float (M,D).
            ids: str (M,); references of a query's own id are skipped.
            fill: Allows too few references: k becomes at most N, and a query with fewer than k gets distance
                inf and row -1 in the last places.

        Returns:
            Distances float64 (M,k), not squared, ascending, and rows int64 (M,k) of the references; at equal
            distance the earlier row comes first.

        Raises:
            ValueError: Fewer than k references for a query, queries of another D, a NaN or infinity, or ids
                that do not fit.
        """
        rows = check_features("features", queries)
        if rows.shape[1] != self.dim:
            raise ValueError(f"features have {rows.shape[1]} columns and the references {self.dim}")
        if ids is not None and len(ids) != len(rows):
            raise ValueError(f"features: {len(rows)} rows and {len(ids)} ids")
        codes, own = self._own(ids, len(rows))
        most_own = int(own.max(initial=0))
        if fill:
            k = min(k, self.n)
        if k < 1 or k > self.n - (0 if fill else most_own):
            but = " besides a query's own" if most_own else ""
            raise ValueError(f"k = {k} is outside 1..{self.n - most_own}, the number of references{but}")
        distances, indices = np.empty((len(rows), k)), np.empty((len(rows), k), np.int64)
        for first in range(0, len(rows), QUERIES_AT_ONCE):
            some = slice(first, first + QUERIES_AT_ONCE)
            q = torch.from_numpy(rows[some]).to(self._device)
            squares, found = self._search(q, torch.from_numpy(codes[some]).to(self._device), k, most_own)
            distances[some], indices[some] = squares.sqrt().cpu().numpy(), found.cpu().numpy()
        indices[np.isinf(distances)] = -1
        return distances, indices

    def _search(
        self, q: torch.Tensor, codes: torch.Tensor, k: int, most_own: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared distances float64 (M,k) and rows int64 (M,k)."""
        squares = torch.empty((len(q), k), dtype=torch.float64, device=self._device)
        found = torch.empty((len(q), k), dtype=torch.int64, device=self._device)
        left = torch.arange(len(q), device=self._device)
        n_candidates = k + most_own + SPARE_CANDIDATES
        for attempt in (n_candidates, WIDER * n_candidates, self.n):
            m = min(attempt, self.n)
            done = torch.zeros(len(left), dtype=torch.bool, device=self._device)
            at_once = max(1, len(left) if m < self.n else ALL_PAIRS // m)
            for first in range(0, len(left), at_once):
                rows = left[first : first + at_once]
                # 1. candidates by the fast form, in order of their rows, so that the earlier wins a tie
                moved = self._move(q[rows])
                norms = moved.double().norm(dim=1)
                if m < self.n:
                    last, candidates = self._candidates(moved, m)
                    candidates = candidates.sort(dim=1).values
                else:
                    last = norms.new_full((len(rows),), float("inf"))
                    candidates = torch.arange(self.n, device=self._device).expand(len(rows), -1)
                # 2. their distances from the differences
                exact = self._exact_squares(q[rows], candidates)
                if self._id_names is not None:
                    own = (self._id_codes[candidates] == codes[rows, None, None]).any(2)
                    exact[own] = float("inf")
                nearest = exact.sort(dim=1, stable=True)
                squares[rows], picked = nearest.values[:, :k], nearest.indices[:, :k]
                found[rows] = candidates.gather(1, picked)
                # 3. references left out are at `last` or further, up to rounding; the norm of one that is
                #    nearer than the k-th is at most |q| + d_k
                kth = squares[rows, -1] * self._scale**2
                slack = MAX_ROUNDINGS * 2.0**-24 * (2 * norms + kth.sqrt()) ** 2
                done[first : first + at_once] = (last >= kth + slack) | (kth == 0)
            left = left[~done]
            if len(left) == 0:
                break
        return squares, found

    def _candidates(self, moved: torch.Tensor, m: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The m nearest by the fast form: the last one's squared distance, (M,), and all rows, (M,m)."""
        # a query far away would overflow; zeros fail the check, and it is compared with all references
        moved = torch.where(moved.abs().amax(1, keepdim=True) < 1e9, moved, torch.zeros_like(moved))
        if self._squares is None:
            squares, rows = faiss.knn(moved.numpy(), self._moved.numpy(), m)
            return torch.from_numpy(squares[:, -1]), torch.from_numpy(rows)
        lasts, parts = [], []
        at_once = max(1, CUDA_MATRIX_BYTES // (4 * self.n))
        with _full_float32():
            for some in moved.split(at_once):
                base = self._squares.expand(len(some), -1)
                nearest = torch.addmm(base, some, self._moved.T, alpha=-2).topk(m, dim=1, largest=False)
                lasts.append(nearest.values[:, -1] + (some**2).sum(1))
                parts.append(nearest.indices)
        return torch.cat(lasts), torch.cat(parts)

    def _exact_squares(self, q: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Squared distances, float64 (M,m), of queries to rows of the references."""
        m = candidates.shape[1]
        exact = torch.empty(candidates.shape, dtype=torch.float64, device=self._device)
        width = max(1, DIFFERENCES_BYTES[self._device.type] // (8 * self.dim))
        at_once = max(1, width // m)
        for first in range(0, len(q), at_once):
            some = slice(first, first + at_once)
            for start in range(0, m, width):
                pairs = slice(start, start + width)
                difference = self._rows[candidates[some, pairs]].double() - q[some, None].double()
                exact[some, pairs] = difference.square_().sum(2)
        return exact

    def _move(self, rows: torch.Tensor) -> torch.Tensor:
        """Scaled and centred rows, float32 (M,D)."""
        return (rows * self._scale).sub_(self._centre)

    def _own(self, ids: np.ndarray | Sequence[str] | None, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The code of each query's id, -1 if no reference has it, and the number of references with it."""
        if ids is None or self._id_names is None or self.n == 0:
            return np.full(n, -1, np.int64), np.zeros(n, np.int64)
        names = np.asarray(ids, str)
        at = np.searchsorted(self._id_names, names).clip(max=len(self._id_names) - 1)
        known = self._id_names[at] == names
        return np.where(known, at, -1), np.where(known, self._id_counts[at], 0)


def nearest_others(
    features: np.ndarray, k: int, rows: np.ndarray | None = None, device: str | torch.device = "auto"
) -> np.ndarray:
    """The k nearest other rows of a set to its own rows, int64 (R,k), nearest first.

    Args:
        features: float (N,D).
        k: At most N - 1.
        rows: int (R,), the rows to find neighbours of; None takes all.

    Raises:
        ValueError: k outside 1..N-1, a NaN or infinity.
    """
    ids = np.arange(len(features)).astype(str)
    asked = slice(None) if rows is None else rows
    return NeighbourSearch(features, ids, device).search(features[asked], k, ids[asked])[1]


def unit_length(features: np.ndarray) -> np.ndarray:
    """Scales features float (...,D) to length 1, float32; one of length 0 stays as it is."""
    lengths = np.sqrt(np.einsum("...d,...d->...", features, features, dtype=np.float64))
    return (features / np.where(lengths > 0, lengths, 1.0)[..., None]).astype(np.float32)


def check_features(name: str, features: np.ndarray) -> np.ndarray:
    """Features (N,D) as float32, C-contiguous; ValueError for another shape, D = 0, a NaN or infinity."""
    given = np.asarray(features)
    if given.ndim != 2 or given.shape[1] == 0:
        raise ValueError(f"{name} must have shape (N,D), got {given.shape}")
    with np.errstate(over="ignore"):
        rows = np.require(given, np.float32, ["C", "W"])
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: {int(bad.sum())} of {len(rows)} rows hold a NaN or infinity")
    return rows


@contextmanager
def _full_float32() -> Iterator[None]:
    """Multiplies in full float32, not in TF32."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
