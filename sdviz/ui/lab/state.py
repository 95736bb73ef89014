"""What the lab and its views share: the settings, the pictures on show, and the work on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from streamlit.delta_generator import DeltaGenerator

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.evaluation import background_psnr
from sdviz.outliers import Outlier, OutlierRequest, Recipe
from sdviz.ui.cache import DEVICE_LOCK, is_making_next, make_outliers
from sdviz.ui.lab.sources import Source
from sdviz.ui.widgets import time_left

RANDOM_OTHER = "random other"
ALL_OTHERS = "all others at once"
SOLVERS = {"ddim": "DDIM", "dpmpp_2m": "DPM-Solver++(2M)", "ddpm": "DDPM, ancestral"}

Run = Callable[..., list[Outlier]]


@dataclass(frozen=True)
class Settings:
    """What the controls say.

    Attributes:
        recipe: S, w, steps, solver, eta, interval, seed.
        target: `RANDOM_OTHER`, `ALL_OTHERS` or a cluster's name.
    """

    recipe: Recipe
    target: str


@dataclass(frozen=True)
class LabState:
    """What a view needs: everything about the pictures on show.

    Attributes:
        bundle: Makes the outliers.
        names: Of its clusters, as shown.
        sources: The images on show.
        settings: What the controls say.
        targets: int64 (N,), c_r of each source.
        outliers: Of each source.
        controls: The same under the right label.
        focus: Which source the views below are about.
        same: How many outliers on show the clusterer still calls what they were, and how many there are; None
            without a clusterer.
    """

    bundle: Bundle
    names: tuple[str, ...]
    sources: list[Source]
    settings: Settings
    targets: np.ndarray
    outliers: list[Outlier]
    controls: list[Outlier]
    focus: int
    same: tuple[int, int] | None = None


def interval_text(recipe: Recipe) -> str:
    """Where guidance counts, "" where it counts everywhere."""
    if recipe.guidance_interval is None:
        return ""
    low, high = recipe.guidance_interval
    return f" only for σ {low:g} to {high:g}"


def runner(bundle: Bundle, status: DeltaGenerator) -> Run:
    """(requests, what is being done, trajectory) -> results, with progress and time left in `status`."""

    def run(requests: list[OutlierRequest], what: str, trajectory: bool = False) -> list[Outlier]:
        if DEVICE_LOCK.locked() and not is_making_next():
            status.progress(0.0, "Somebody else's pictures are being made; yours come next")
        return make_outliers(bundle, requests, time_left(status, what), trajectory)

    return run


def mean_psnr(made: list[tuple[Source, Outlier]]) -> float:
    """Mean background PSNR in dB of drawn sources' outliers; inf where nothing was touched."""
    original = np.stack([s.image for s, _ in made])
    masks = data.masks(np.array([s.id for s, _ in made]))
    psnr = background_psnr(original, np.stack([e.image for _, e in made]), masks)
    finite = psnr[np.isfinite(psnr)]
    return float(finite.mean()) if len(finite) else float("inf")
