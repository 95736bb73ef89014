"""What Embeddings shows: the points, what is known of each, and their layouts."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sdviz import runs
from sdviz.analysis import Evidence, PictureLibrary
from sdviz.analysis.imports import Imported
from sdviz.analysis.points import Points, available_sets, moves
from sdviz.analysis.rescoring import SetScores
from sdviz.analysis.stored_layouts import View
from sdviz.analysis.tables import ID_ROLES, OUTLIERS, TRAIN, or_none
from sdviz.analysis.votes import find_sample
from sdviz.projection import Layouts, LayoutSettings, compute_layouts
from sdviz.ui.cache.imports import imports_of
from sdviz.ui.cache.kept import kept
from sdviz.ui.cache.layouts import LayoutStore
from sdviz.ui.library import BundleView
from sdviz.ui.pictures import NEUTRAL_COLOUR
from sdviz.ui.scores import SetsNow, sets_now
from sdviz.ui.session import ScoreChoice, sample, score_settings
from sdviz.ui.text import code_span
from sdviz.ui.theme import set_titles

PAGE = "embeddings"
# the verdict on an image at the threshold in use
RIGHT, MISSED, ALARM, UNSCORED = "right", "missed OOD", "false alarm", "not scored"


@dataclass(frozen=True, eq=False)
class Known(BundleView):
    """The points on show and what is known of each."""

    points: Points
    settings: ScoreChoice | None  # k, alpha and normalisation of the score; None without a detector
    now: SetsNow  # scores and threshold under them
    classes: np.ndarray  # str (N,), an image's own class, "" where it is unknown and for outliers
    imports: tuple[Imported, ...]  # others' scores and features of the bundle's images

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each set."""
        return titles_of(self.evidence)

    def colour_of(self, name: str) -> str:
        """The colour of a set."""
        return self.colours.get(name, NEUTRAL_COLOUR)

    def title_of(self, name: str) -> str:
        """The title of a set."""
        return self.titles.get(name, name)

    def _column(self, name: str) -> np.ndarray:
        scores: dict[str, SetScores] = self.now.scores or {}
        return self.points.spread({one: np.asarray(getattr(s, name), float) for one, s in scores.items()})

    @cached_property
    def scores(self) -> np.ndarray:
        """The score (Eq. 6) of each point, float64 (N,), NaN for none."""
        return self._column("total")

    @cached_property
    def votes(self) -> np.ndarray:
        """The votes for each point, outliers among its k nearest, float64 (N,), NaN without a score."""
        return self._column("votes")

    @cached_property
    def imported_scores(self) -> dict[str, np.ndarray]:
        """The scores of each point by each import, float64 (N,), NaN for none; by the import's name."""
        return {one.name: self.points.spread(one.scores) for one in self.imports if one.scores}

    @cached_property
    def verdicts(self) -> np.ndarray:
        """`RIGHT`, `MISSED`, `ALARM` or `UNSCORED` for each point, str (N,)."""
        found = np.full(len(self.points), UNSCORED, dtype="<U16")
        limit = self.now.threshold
        if limit is None:
            return found
        scored = ~np.isnan(self.scores)
        id_names = [name for name, one in self.evidence.shown_sets.items() if one.role in ID_ROLES]
        is_id, flagged = np.isin(self.points.sets, id_names), self.scores > limit
        found[scored] = RIGHT
        found[scored & is_id & flagged] = ALARM
        found[scored & ~is_id & ~flagged] = MISSED
        return found


@kept("points")
def _points(view: View, evidence: Evidence) -> Points:
    return view.points(evidence)


@kept("classes of points")
def _classes(points: Points, evidence: Evidence, library: PictureLibrary) -> np.ndarray:
    found = np.full(len(points), "", dtype=object)
    here = points.sets != OUTLIERS
    if here.any():
        found[here] = library.class_names(points.ids[here])
    return found.astype(str)


def known_of(evidence: Evidence, library: PictureLibrary, view: View) -> Known:
    """Samples the points of a view and collects the facts about them. Raises MissingPart: no features."""
    points = _points(view, evidence)
    settings = score_settings(evidence)
    now = sets_now(evidence, settings) if settings is not None else SetsNow(None, "no detector", {}, None)
    classes = _classes(points, evidence, library)
    imports = tuple(imports_of(evidence).values())
    return Known(evidence, library, points, settings, now, classes, imports)


def titles_of(evidence: Evidence) -> dict[str, str]:
    """The title of each set."""
    return set_titles(evidence) | {TRAIN: "train (ID)", OUTLIERS: OUTLIERS}


@kept("moving features")
def moves_through_training(evidence: Evidence) -> bool:
    """Whether features change between the bundle's snapshots. Raises MissingPart: it has none."""
    return moves(evidence.snapshots[0])


def sets_in_order(names: Iterable[str]) -> list[str]:
    """The training images first, the outliers last."""
    return sorted(names, key=lambda one: (one != TRAIN, one == OUTLIERS))


def sets_to_choose(evidence: Evidence, through: bool) -> list[str]:
    """The sets that have points in this view."""
    return or_none(lambda: available_sets(evidence, through)) or []


def mark_sample(known: Known, unit_length: bool) -> tuple[int, str]:
    """Finds the point to mark for the image in use.

    Returns:
        The row of the image, else of the point nearest to it in feature space, else -1; and a line about it,
        "" where the image itself is marked or none is in use.
    """
    one, p = sample(), known.points
    if not one:
        return -1, ""
    rows = np.flatnonzero(p.ids == one)
    if len(rows):
        return int(rows[0]), ""
    found = find_sample(known.evidence, one)
    if found is None or found.features is None or not len(p) or p.imported:
        return -1, ""
    features = found.features.astype(np.float32)
    if unit_length:
        features = features / max(float(np.linalg.norm(features)), 1e-12)
    row = int(((p.features[-1] - features) ** 2).sum(1).argmin())
    return (
        row,
        f"The image in use, {code_span(one)}, is not among these points: ringed is the one nearest to it.",
    )


@kept("layout stores")
def _store(folder: Path) -> LayoutStore:
    return LayoutStore(folder)


def layout_store() -> LayoutStore:
    """The store of layouts, in the folder of runs."""
    return _store((runs.runs_root() / ".layouts").absolute())


@kept("PCA")
def by_pca(features: np.ndarray, dims: int) -> Layouts:
    """A PCA of every epoch; takes about a second. Raises ValueError: as `compute_layouts`."""
    return compute_layouts(features, LayoutSettings("pca", dims))
