"""What the parts of the lab share: settings, pictures on show, and the function that makes them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from streamlit.delta_generator import DeltaGenerator

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.evaluation import background_psnr
from sdviz.outliers import Outlier, OutlierRequest, Recipe
from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cache.outliers import is_making_next, make_outliers
from sdviz.ui.lab.sources import SourceImage
from sdviz.ui.widgets import time_left

RANDOM_OTHER = "random other"
ALL_OTHERS = "all others at once"
SOLVERS = {one.key: one.title for one in SAMPLERS.values()}

Run = Callable[..., list[Outlier]]


@dataclass(frozen=True)
class Settings:
    """The values of the controls."""

    recipe: Recipe  # S, w, steps, solver, eta, interval, seed
    target: str  # `RANDOM_OTHER`, `ALL_OTHERS` or a cluster's name


@dataclass(frozen=True)
class LabState:
    """Everything about the pictures on show."""

    bundle: Bundle
    names: tuple[str, ...]  # of its clusters, as shown
    sources: list[SourceImage]  # the images on show
    settings: Settings
    targets: np.ndarray  # int64 (N,), c_r of each source
    outliers: list[Outlier]  # one for each source
    controls: list[Outlier]  # one for each source, under the right label
    focus: int  # index of the source in the views below
    # how many outliers have their original's cluster, and how many there are; None without a clusterer
    same: tuple[int, int] | None = None

    @property
    def source(self) -> SourceImage:
        """The source in the views."""
        return self.sources[self.focus]

    @property
    def source_name(self) -> str:
        """The name of its cluster."""
        return self.names[self.source.label]

    @property
    def target_name(self) -> str:
        """The name of its wrong label."""
        return self.names[int(self.targets[self.focus])]


def guidance_text(recipe: Recipe) -> str:
    """Returns the guidance interval in words, "" if guidance is on everywhere."""
    if recipe.guidance_interval is None:
        return ""
    low, high = recipe.guidance_interval
    return f" only for σ {low:g} to {high:g}"


def runner(bundle: Bundle, status: DeltaGenerator) -> Run:
    """Returns a function that makes outliers and shows progress and time left in `status`.

    Its arguments: requests, the work in words, and whether to keep trajectories.
    """

    def run(requests: list[OutlierRequest], what: str, trajectory: bool = False) -> list[Outlier]:
        if DEVICE_LOCK.locked() and not is_making_next():
            status.progress(0.0, "Somebody else's pictures are being made; yours come next")
        return make_outliers(bundle, requests, time_left(status, what), trajectory)

    return run


def mean_psnr(made: list[tuple[SourceImage, Outlier]]) -> float:
    """Returns the mean background PSNR in dB over outliers of drawn sources; inf if nothing changed."""
    original = np.stack([s.image for s, _ in made])
    masks = data.masks(np.array([s.id for s, _ in made]))
    psnr = background_psnr(original, np.stack([e.image for _, e in made]), masks)
    finite = psnr[np.isfinite(psnr)]
    return float(finite.mean()) if len(finite) else float("inf")
