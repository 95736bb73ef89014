"""Lays out features in 2-D or 3-D by PCA, t-SNE or UMAP, for one epoch or for several aligned ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version

import numpy as np

from .quality import trustworthiness

METHODS = ("pca", "tsne", "umap")
TRUST_NEIGHBOURS = 10
_FORMAT = 1
# A later epoch starts from the layout of the previous one with less exaggeration: on the shipped bundle, that
# keeps the trustworthiness of a fresh start (0.995) and moves the median point half as far
_WARM_EXAGGERATION, _WARM_ITERATIONS = 4.0, 500
_WARM_UMAP_EPOCHS, _WARM_UMAP_RATE = 200, 0.1

Progress = Callable[[float], None]


@dataclass(frozen=True)
class LayoutSettings:
    """How points are laid out.

    Attributes:
        method: "pca", "tsne" or "umap".
        dims: 2 or 3.
        perplexity: Of t-SNE, about the number of neighbours that stay close; at most (N-1)/3 is used.
        n_neighbors: The same of UMAP; at most N-1 is used.
    """

    method: str = "tsne"
    dims: int = 2
    perplexity: float = 30.0
    n_neighbors: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}, not one of {', '.join(METHODS)}")
        if self.dims not in (2, 3):
            raise ValueError(f"dims is {self.dims}, neither 2 nor 3")
        if not self.perplexity >= 1:
            raise ValueError(f"perplexity is {self.perplexity}, below 1")
        if self.n_neighbors < 2:
            raise ValueError(f"n_neighbors is {self.n_neighbors}, below 2")

    def key(self, features: np.ndarray) -> str:
        """SHA-256 of all that layouts depend on: features (F,N,D), these settings, the libraries' versions."""
        library = "umap-learn" if self.method == "umap" else "scikit-learn"
        what = self.relevant() | {"shape": features.shape, library: version(library)}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(features, np.float32).tobytes())
        return digest.hexdigest()

    def relevant(self) -> dict[str, object]:
        """The settings that the method uses, and the format of these layouts."""
        what: dict[str, object] = asdict(self) | {"format": _FORMAT}
        if self.method != "tsne":
            del what["perplexity"]
        if self.method != "umap":
            del what["n_neighbors"]
        if self.method == "pca":
            del what["seed"]
        return what


@dataclass(frozen=True, eq=False)
class Layouts:
    """Layouts of the same points, one for each epoch.

    Attributes:
        points: float32 (F,N,2) or (F,N,3).
        trust: float64 (F,), trustworthiness in 0..1; NaN if there are too few points.
        explained: float64 (F,dims), the share of variance along each axis of a PCA; NaN for other methods.
    """

    points: np.ndarray
    trust: np.ndarray
    explained: np.ndarray


def fewest_points(method: str) -> int:
    """How many points a method needs."""
    return 1 if method == "pca" else 6


def compute_layouts(
    features: np.ndarray, settings: LayoutSettings, on_progress: Progress | None = None
) -> Layouts:
    """Lays out the points of every epoch, each aligned with the previous epoch.

    t-SNE and UMAP start from the layout of the previous epoch; PCA starts afresh. Then the layout is turned,
    flipped and moved as close to the previous one as possible. It is not stretched, but a UMAP is scaled to the
    size of the previous one.

    Args:
        features: float (F,N,D), the same N points through F epochs.
        on_progress: Called with the share done, 0..1.

    Raises:
        ValueError: No features of that shape, some that are not finite, or too few points for the method.
    """
    if features.ndim != 3 or not features.size:
        raise ValueError(f"features have the shape {features.shape}, not (epochs, points, dimensions)")
    if not np.isfinite(features).all():
        raise ValueError("some features are not finite: there is no place to put them")
    n = features.shape[1]
    if n < fewest_points(settings.method):
        raise ValueError(f"{settings.method} needs at least {fewest_points(settings.method)} points, not {n}")
    report = on_progress or (lambda done: None)

    def within(epoch: int, done: float) -> None:
        report((epoch + done) / len(features))

    frames, trust, explained = [], [], []
    before: np.ndarray | None = None
    for i, one in enumerate(features):
        share = np.full(settings.dims, np.nan)
        if settings.method == "pca":
            points, share = _pca(one, settings.dims)
        elif settings.method == "tsne":
            points = _tsne(one, settings, before)
        else:
            points = _umap(one, settings, before, partial(within, i))
        points = points - points.mean(0)
        if before is not None:
            if settings.method == "umap":
                # UMAP scales its start to 10 x 10, so the size of its layouts has no meaning
                points *= np.sqrt((before**2).sum() / max((points**2).sum(), 1e-12))
            points = align(points, before)
        before = points
        frames.append(points)
        trust.append(trustworthiness(one, points, TRUST_NEIGHBOURS))
        explained.append(share)
        within(i, 1)
    return Layouts(np.stack(frames).astype(np.float32), np.array(trust), np.stack(explained))


def align(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Turns, flips and moves points (N,d) onto others by least squares (Procrustes), float64 (N,d).

    Row i of both is the same point. Distances between the points do not change.
    """
    a, b = points - points.mean(0), onto - onto.mean(0)
    u, _, v = np.linalg.svd(a.T.astype(np.float64) @ b.astype(np.float64))
    return np.asarray(a @ (u @ v) + onto.mean(0))


def _pca(features: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA  # seconds to import, and a page without a layout needs none

    n, d = features.shape
    have = min(dims, n, d)
    points, share = np.zeros((n, dims)), np.full(dims, np.nan)
    if n > 1:
        model = PCA(have, svd_solver="full").fit(features)
        points[:, :have] = model.transform(features)
        share[:have] = model.explained_variance_ratio_
    return points, share


def _tsne(features: np.ndarray, settings: LayoutSettings, before: np.ndarray | None) -> np.ndarray:
    from sklearn.manifold import TSNE

    n = len(features)
    how: dict[str, object] = {"init": "pca" if min(features.shape) >= settings.dims else "random"}
    if before is not None:
        how = {
            "init": before.astype(np.float32),
            "early_exaggeration": _WARM_EXAGGERATION,
            "max_iter": _WARM_ITERATIONS,
        }
    model = TSNE(
        settings.dims,
        perplexity=max(1.0, min(settings.perplexity, (n - 1) / 3)),
        random_state=settings.seed,
        n_jobs=1,
        **how,
    )
    return np.asarray(model.fit_transform(features.astype(np.float32)), np.float64)


class _Listener:
    """A stream for tqdm that reports its percentage as progress."""

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress

    def write(self, text: str) -> None:
        percent = text.strip("\r\n ").partition("%")[0]
        if percent.isdigit():
            self._on_progress(int(percent) / 100)

    def flush(self) -> None:
        """Does nothing, as nothing is buffered."""


def _umap(
    features: np.ndarray, settings: LayoutSettings, before: np.ndarray | None, on_progress: Progress
) -> np.ndarray:
    from umap import UMAP  # half a minute to import and compile on a slow machine

    n = len(features)
    neighbours = min(settings.n_neighbors, n - 1)
    init: object = "pca" if min(features.shape) >= settings.dims else "random"
    if before is not None:
        init = before.astype(np.float32)
    elif n > 5 * settings.dims + 10:
        init = "spectral"
    model = UMAP(
        n_neighbors=neighbours,
        n_components=settings.dims,
        init=init,
        n_epochs=None if before is None else _WARM_UMAP_EPOCHS,
        learning_rate=1.0 if before is None else _WARM_UMAP_RATE,
        random_state=settings.seed,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": _Listener(on_progress), "bar_format": "{percentage:.0f}%"},
    )
    return np.asarray(model.fit_transform(features.astype(np.float32)), np.float64)
