"""Near-duplicates on the page Failures: images that are close to a training image in feature space."""

from contextlib import suppress

import numpy as np
import streamlit as st

from sdviz.analysis import MissingPart
from sdviz.analysis.duplicates import Pairs, ood_pairs, outlier_pairs, source_pairs
from sdviz.analysis.tables import OUTLIERS
from sdviz.ui.cache.background import DEVICE_LOCK, let_others_compute
from sdviz.ui.cache.kept import kept
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.failures.detail import show_detail
from sdviz.ui.failures.state import page_buttons, page_of, pictures_of
from sdviz.ui.library import uri_of
from sdviz.ui.links import set_link_value
from sdviz.ui.missing import say_missing, show_missing_part
from sdviz.ui.pictures import TRAIN_COLOUR
from sdviz.ui.scores import ScoredSets
from sdviz.ui.session import opener, sample
from sdviz.ui.text import percent

PAIRS_AT_ONCE = 20
PAIR_PX = 96
SOURCE, NEAREST = "outliers-source", "outliers-nearest"
OUTLIER_KINDS = {
    SOURCE: "outliers beside their own sources",
    NEAREST: "outliers beside the nearest training image",
}
PAIRS = "f_pairs"  # a key of the address; its value is a kind of outlier pairs or the name of a set


@kept("near-duplicates")
def _pairs(view: ScoredSets, which: str) -> Pairs:
    normalize, place = view.settings.normalize, st.empty()

    def on_progress(share: float) -> None:
        place.progress(share, "Searching the nearest training image of each, once")
        let_others_compute()

    try:
        if which == SOURCE:
            return source_pairs(view.evidence, normalize)
        with DEVICE_LOCK:
            if which == NEAREST:
                return outlier_pairs(view.evidence, normalize, on_progress)
            return ood_pairs(view.evidence, which, normalize, on_progress)
    finally:
        place.empty()


def show_pairs(view: ScoredSets) -> None:
    """Shows the choice of pairs, the nearest ones side by side, and one of them in detail."""
    sets = view.evidence.sets_at_hand
    options = [*[name for name in sets if name != view.id_name], *OUTLIER_KINDS, view.id_name]
    which = str(st.session_state.get(PAIRS, ""))
    which = which if which in options else options[0]
    st.session_state["failures_pairs"] = which
    st.selectbox(
        "Pairs of",
        options,
        format_func=lambda one: OUTLIER_KINDS.get(one) or f"{view.titles.get(one, one)} beside training images",
        key="failures_pairs",
        on_change=lambda: set_link_value(PAIRS, str(st.session_state["failures_pairs"])),
        width=520,
    )
    try:
        pairs = _pairs(view, which)
    except (MissingPart, ValueError) as error:
        show_missing_part(str(error), "pairs of pictures whose features lie close together, nearest first")
        return
    _say_what(view, which, pairs)
    columns = st.columns([3, 1.75], gap="medium")
    with columns[0]:
        _grid(view, which, pairs)
    with columns[1]:
        show_detail(view, pairs.ids)


def _say_what(view: ScoredSets, which: str, pairs: Pairs) -> None:
    d = pairs.distances
    if not len(d):
        st.info("There is no pair to show.")
        return
    usual = _usual_distance(view)
    text = f"{len(d):,} pairs, distances {d.min():.3f} to {d.max():.3f}, median {np.median(d):.3f}."
    if which in OUTLIER_KINDS:
        text += (
            " An outlier that lies on its source kept its semantics: it is called OOD in training and looks ID."
            if which == SOURCE
            else f" For {percent(float(pairs.is_source.mean()))} of them the nearest is their own source."
        )
    if usual is not None and which != view.id_name:
        near = int((d < usual).sum())
        text += (
            f" {near:,} nearer than {usual:.3f}, within which half of the held-out ID images have their "
            "nearest training image: look for near-duplicates there."
        )
    st.caption(text)


def _usual_distance(view: ScoredSets) -> float | None:
    with suppress(MissingPart, ValueError):
        d = _pairs(view, view.id_name).distances
        return float(np.median(d)) if len(d) else None
    return None


def _grid(view: ScoredSets, which: str, pairs: Pairs) -> None:
    if not len(pairs):
        return
    page = page_of(pairs.ids, PAIRS_AT_ONCE)
    rows = np.arange(page * PAIRS_AT_ONCE, min(len(pairs), (page + 1) * PAIRS_AT_ONCE))
    ids, others = pairs.ids[rows].tolist(), pairs.others[rows].tolist()
    pictures = pictures_of(view, [*ids, *others])
    chosen = sample() or ids[0]
    colour = view.colours[OUTLIERS if which in OUTLIER_KINDS else which]
    n = len(rows)
    top = [
        Cell(
            uri_of(pictures, i),
            one,
            colour,
            f"{pairs.distances[rows[i]]:.3f}",
            str(pictures.class_names[i]),
            id=one,
            chosen=one == chosen,
        )
        for i, one in enumerate(ids)
    ]
    below = [
        Cell(uri_of(pictures, n + i), one, TRAIN_COLOUR, "", str(pictures.class_names[n + i]), id=ids[i])
        for i, one in enumerate(others)
    ]
    first = "outlier" if which in OUTLIER_KINDS else which
    second = "its source" if which == SOURCE else "nearest training image"
    picture_grid(
        top + below,
        n,
        key="failures_pair_grid",
        size_px=PAIR_PX,
        row_names=[Label(first, "distance"), Label(second)],
        head_px=80,
        on_click=opener("failures_pair_grid"),
    )
    say_missing(pictures)
    page_buttons(len(pairs), page, PAIRS_AT_ONCE)
    st.caption(
        "Two pictures, one above the other, whose features lie close together; the number is the Euclidean "
        f"distance of their features{', each of length 1, 0 to 2' if view.settings.normalize else ''}. "
        "A pair that shows the same thing is a duplicate or a wrong label. Click one to look closer."
    )
