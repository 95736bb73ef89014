"""Layouts computed in advance and shipped with the bundles, so that the page Embeddings opens at once."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..projection import (
    SUFFIX,
    Layouts,
    LayoutSettings,
    compute_layouts,
    fewest_points,
    read_layouts,
    write_layouts,
)
from .points import OUTLIERS, TRAIN, Points, available_sets, final_points, snapshot_points
from .tables import Evidence, MissingPart, or_none

FOLDER = ".layouts"
USUAL_POINTS = 2_000


@dataclass(frozen=True)
class View:
    """What is laid out, and how."""

    through: bool  # whether images are followed through training
    sets: tuple[str, ...]  # drawn ones, in the order of `available_sets`
    n: int  # how many points at most
    unit_length: bool  # whether features are brought to length 1 first
    layout: LayoutSettings  # how they are laid out

    def points(self, evidence: Evidence) -> Points:
        """Which images, and their features. Raises MissingPart: the bundle has none to show."""
        draw = snapshot_points if self.through else final_points
        return draw(evidence, self.sets, self.n, self.unit_length)


def usual_sets(evidence: Evidence, names: list[str]) -> list[str]:
    """All but the validation sets, which resemble their test sets."""
    roles = {name: one.role for name, one in (or_none(lambda: evidence.sets) or {}).items()}
    return [name for name in names if roles.get(name) != "validation"] or names


def figure_3_sets(evidence: Evidence, names: list[str]) -> list[str]:
    """Those of the paper's Figure 3: training images, one OOD set, the nearest there is, and the outliers."""
    sets = or_none(lambda: evidence.ood_sets) or {}
    ood = [name for name, one in sets.items() if one.role in ("near", "far") and name in names]
    return [name for name in names if name in (TRAIN, OUTLIERS, *ood[:1])]


def usual_views(evidence: Evidence) -> Iterator[View]:
    """What Embeddings shows first: t-SNE and UMAP of each feature space, and t-SNE of the paper's Figure 3."""
    own = evidence.bundle.manifest.score
    unit = own.normalize if own else True
    for through in (True, False):
        try:
            names = available_sets(evidence, through)
        except MissingPart:
            continue
        usual = tuple(usual_sets(evidence, names))
        of_figure = tuple(figure_3_sets(evidence, names)) if through else ()
        for method in ("tsne", "umap"):
            yield View(through, usual, USUAL_POINTS, unit, LayoutSettings(method))
        if of_figure not in ((), usual):
            yield View(through, of_figure, USUAL_POINTS, unit, LayoutSettings("tsne"))


def file_of(evidence: Evidence, points: Points, unit_length: bool, layout: LayoutSettings) -> Path | None:
    """The file of stored layouts, there or not; None for a bundle that has no folder.

    The name is of the bundle's hash, the images and the settings, and not of the features' bytes: those differ
    in their last digits from one processor to another.
    """
    bundle = evidence.bundle
    if bundle.path is None:
        return None
    frames = points.same_in or points.frames
    what = layout.relevant() | {"bundle": bundle.hash, "frames": frames, "unit": unit_length}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    digest.update("\n".join(points.ids.tolist()).encode())
    return Path(bundle.path).parent / FOLDER / f"{digest.hexdigest()[:32]}{SUFFIX}"


def find_stored(
    evidence: Evidence, points: Points, unit_length: bool, layout: LayoutSettings
) -> Layouts | None:
    """The stored layouts of these points, None where there are none."""
    file = file_of(evidence, points, unit_length, layout)
    found = read_layouts(file) if file is not None else None
    wanted = (*points.features.shape[:2], layout.dims)
    return found if found is not None and found.points.shape == wanted else None


def store_usual_layouts(evidence: Evidence, on_made: Callable[[View, Path, bool], None]) -> None:
    """Makes the usual layouts that are missing; `on_made` gets view, file, and whether it was made now."""
    for view in usual_views(evidence):
        points = view.points(evidence)
        file = file_of(evidence, points, view.unit_length, view.layout)
        if file is None or len(points) < fewest_points(view.layout.method):
            continue
        if find_stored(evidence, points, view.unit_length, view.layout) is not None:
            on_made(view, file, False)
            continue
        write_layouts(file, compute_layouts(points.features, view.layout))
        on_made(view, file, True)
