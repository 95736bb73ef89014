"""What the parts of Failures share: facts about images, notes, and the page of the list."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import streamlit as st

from sdviz import runs
from sdviz.analysis import Evidence, MissingPart, Pictures
from sdviz.analysis.failures import predicted_clusters
from sdviz.analysis.notes import FILE, NoteBook
from sdviz.bundle.generated import GENERATED_OUTLIERS
from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cache.evidence import find_rescorer
from sdviz.ui.cache.kept import kept
from sdviz.ui.scores import ScoredSets
from sdviz.ui.session import ScoreChoice, sample

AT_ONCE = 24  # whole rows of 4, 6 or 8
_PAGE = "failures_page"


def settings_text(settings: ScoreChoice) -> str:
    """k, alpha and normalisation in words."""
    features = "unit length" if settings.normalize else "features as they are"
    return f"k = {settings.k}, alpha = {settings.alpha:g}, {features}"


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of each image of a scored set."""

    # str (N,), the image's own class, "" where unknown; for an SD outlier "outlier of" its source's class, or
    # its source's cluster if that is a generated image
    classes: np.ndarray
    clusters: np.ndarray  # int64 (N,), the cluster that the detector takes it for, -1 where unknown


@kept("facts")
def facts_of(view: ScoredSets, name: str) -> Facts:
    """Classes and clusters of a scored set's images."""
    one = view.evidence.shown_sets[name]
    if name == GENERATED_OUTLIERS:
        known = [view.evidence.generated_clusters[i][0] for i in one.ids.tolist()]
        classes = np.array([f"outlier of {view.names[c]}" for c in known], dtype=str)
    elif one.role == "sd":
        sources = view.library.classes_of_sources(one.ids)
        classes = np.array([f"outlier of {name}" if name else "" for name in sources.tolist()], dtype=str)
    else:
        classes = view.library.class_names(one.ids)
    return Facts(classes, predicted_clusters(view.evidence, one))


@kept("rows")
def _place_by_id(evidence: Evidence) -> dict[str, tuple[str, int]]:
    return {
        i: (name, row) for name, one in evidence.shown_sets.items() for row, i in enumerate(one.ids.tolist())
    }


def place_of(view: ScoredSets, one: str) -> tuple[str, int] | None:
    """The scored set of an image and its row there; None for an image without a score."""
    return _place_by_id(view.evidence).get(one)


@dataclass(frozen=True)
class Nearest:
    """The training image nearest to another image."""

    id: str
    cluster: int  # y~
    distance: float  # euclidean, of the features


@kept("nearest")
def _nearest(view: ScoredSets, one: str, name: str, row: int) -> Nearest | None:
    scored, own, normalize = view.evidence.shown_sets[name], view.bundle.manifest.score, view.settings.normalize
    if scored.features is None or own is None:
        return None
    banks = view.evidence.banks
    if normalize == own.normalize:
        with DEVICE_LOCK:
            near = view.bundle.scorer.search(scored.features[[row]], scored.ids[[row]], k=1)
        distance, at = float(near.id_distances[0, 0]), int(near.id_indices[0, 0])
    else:
        all_near = find_rescorer(view.evidence, normalize).neighbourhoods[name]
        distance, at = float(all_near.id_distances[row, 0]), int(all_near.id_indices[row, 0])
    return Nearest(str(banks.id_ids[at]), int(banks.id_labels[at]), distance)


def nearest_of(view: ScoredSets, one: str) -> Nearest | None:
    """The training image nearest to a scored image; None where unknown."""
    place = place_of(view, one)
    with suppress(MissingPart, ValueError):
        return _nearest(view, one, *place) if place else None
    return None


def class_of(view: ScoredSets, one: str, of_picture: str) -> str:
    """The text under a picture: its own class; for an SD outlier in a scored set, the class of its source."""
    place = place_of(view, one)
    if place is None or view.evidence.shown_sets[place[0]].role != "sd":
        return of_picture
    if place[0] == GENERATED_OUTLIERS:
        was, _, target = view.evidence.generated_clusters[one]
        return f"{view.names[was]}, told {view.names[target]}"
    return str(facts_of(view, place[0]).classes[place[1]])


def pictures_of(view: ScoredSets, ids: list[str]) -> Pictures:
    """Pictures by id, with a spinner while outliers are generated."""
    if any(map(view.library.must_generate, ids)):
        with st.spinner("Making outliers again from their sources ..."):
            return view.show_pictures(ids)
    return view.library.show(ids)


def notebook() -> NoteBook:
    """The notes of this machine, in the folder of runs."""
    return NoteBook(runs.runs_root() / FILE)


def position(ids: np.ndarray) -> int | None:
    """The place of the image in use in the list; None where it is not in the list."""
    at = np.flatnonzero(ids == sample())
    return int(at[0]) if len(at) else None


def page_of(ids: np.ndarray, at_once: int = AT_ONCE) -> int:
    """The page of the list to show: the last one opened, or that of the image in use if it changed since."""
    page, when = st.session_state.get(_PAGE, (0, ""))
    at = position(ids)
    if at is not None and when != sample():
        page = at // at_once
    page = max(0, min(int(page), (len(ids) - 1) // at_once))
    st.session_state[_PAGE] = (page, sample())
    return page


def turn_to(page: int) -> None:
    """For `on_click`: turns to a page of the list."""
    st.session_state[_PAGE] = (page, sample())


def page_buttons(n: int, page: int, at_once: int = AT_ONCE) -> None:
    """Buttons to turn the pages of a list, and the range on show."""
    if n <= at_once:
        return
    columns = st.columns([1, 1, 3], vertical_alignment="center")
    last = (n - 1) // at_once
    for column, step, icon in ((columns[0], -1, "chevron_left"), (columns[1], 1, "chevron_right")):
        column.button(
            "",
            key=f"failures_turn_{step}",
            icon=f":material/{icon}:",
            on_click=turn_to,
            args=(page + step,),
            disabled=not 0 <= page + step <= last,
            help="The part before" if step < 0 else "The part after",
            width="stretch",
        )
    columns[2].caption(f"{page * at_once + 1:,} to {min(n, (page + 1) * at_once):,} of {n:,}")
