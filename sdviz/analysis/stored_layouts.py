"""Layouts stored beside the bundles, so that the page Embeddings opens at once."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle.generated import GENERATED
from ..projection import (
    SUFFIX,
    Layouts,
    LayoutSettings,
    compute_layouts,
    fewest_points,
    read_layouts,
    write_layouts,
)
from .imports import ImportFile, read_features
from .points import Points, available_sets, final_points, imported_points, snapshot_points
from .tables import HALVES, OUTLIERS, TRAIN, WITH_PICTURES, Evidence, MissingPart, or_none

FOLDER = ".layouts"
USUAL_POINTS = 2_000


@dataclass(frozen=True)
class View:
    """The points and settings of one layout."""

    through: bool  # whether images are followed through training
    sets: tuple[str, ...]  # in the order of `available_sets`
    n: int  # the most points
    unit_length: bool  # whether features are scaled to length 1
    layout: LayoutSettings
    imported: ImportFile | None = None  # whose features they are; None for the detector's

    def points(self, evidence: Evidence) -> Points:
        """The images and their features. Raises MissingPart: the bundle has none."""
        if self.imported is not None:
            features = read_features(self.imported)
            name = self.imported.name
            return imported_points(evidence, name, features, self.sets, self.n, self.unit_length)
        draw = snapshot_points if self.through else final_points
        return draw(evidence, self.sets, self.n, self.unit_length)


def usual_sets(evidence: Evidence, names: list[str]) -> list[str]:
    """The sets without those for validation, which resemble the test sets, and without generated images.

    Where generated images stand in, those of `Evidence.sets_at_hand`.
    """
    if evidence.stands_in and GENERATED in names:
        return _stand_ins(evidence, names)
    roles = {name: one.role for name, one in (or_none(lambda: evidence.sets) or {}).items()}
    return [name for name in names if roles.get(name) != "validation" and name not in HALVES] or names


def _stand_ins(evidence: Evidence, names: list[str]) -> list[str]:
    sets = evidence.shown_sets
    return [name for name in names if name in WITH_PICTURES and sets[name].role != "validation"]


def figure_3_sets(evidence: Evidence, names: list[str]) -> list[str]:
    """The sets of the paper's Figure 3: training images, one OOD set (near if there is one), the outliers."""
    sets = or_none(lambda: evidence.ood_sets) or {}
    ood = [name for name, one in sets.items() if one.role in ("near", "far") and name in names]
    return [name for name in names if name in (TRAIN, OUTLIERS, *ood[:1])]


def usual_views(evidence: Evidence) -> Iterator[View]:
    """The first views of Embeddings: t-SNE and UMAP of each feature space, and t-SNE of Figure 3.

    With generated images, also those where they stand in.
    """
    own = evidence.bundle.manifest.score
    unit = own.normalize if own else True
    for through in (True, False):
        try:
            names = available_sets(evidence, through)
        except MissingPart:
            continue
        usual = tuple(usual_sets(evidence, names))
        of_figure = tuple(figure_3_sets(evidence, names)) if through else ()
        shown = {usual, tuple(_stand_ins(evidence, names))} if GENERATED in names else {usual}
        for method in ("tsne", "umap"):
            for sets in sorted(shown):
                yield View(through, sets, USUAL_POINTS, unit, LayoutSettings(method))
        if of_figure not in ((), usual):
            yield View(through, of_figure, USUAL_POINTS, unit, LayoutSettings("tsne"))


def file_of(evidence: Evidence, points: Points, unit_length: bool, layout: LayoutSettings) -> Path | None:
    """The file for stored layouts, which need not exist; None for a bundle without a folder.

    Its name depends on the bundle's hash, the images and the settings, but not on the features, because their
    last digits vary with the processor.
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
    """The stored layouts of these points, None if there are none."""
    file = file_of(evidence, points, unit_length, layout)
    found = read_layouts(file) if file is not None else None
    wanted = (*points.features.shape[:2], layout.dims)
    return found if found is not None and found.points.shape == wanted else None


def store_usual_layouts(evidence: Evidence, on_made: Callable[[View, Path, bool], None]) -> None:
    """Makes the missing usual layouts; `on_made` gets each view, its file, and whether it was made now."""
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
