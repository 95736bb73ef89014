"""The page Failures: images on the wrong side of the threshold, worst first."""

import math
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pandas as pd
import streamlit as st

from sdviz.analysis import Evidence, MissingPart, PictureLibrary
from sdviz.analysis.failures import Failures, find_failures, recall_of
from sdviz.analysis.notes import NotesError, notes_csv, tallies
from sdviz.analysis.provenance import provenance
from sdviz.analysis.tables import ID_ROLES
from sdviz.bundle import Bundle
from sdviz.bundle.generated import GENERATED
from sdviz.evaluation import id_recall_threshold
from sdviz.ui.cache.evidence import open_evidence
from sdviz.ui.components.picture_grid import Cell, picture_grid
from sdviz.ui.failures import state
from sdviz.ui.failures.detail import show_detail
from sdviz.ui.failures.near_duplicates import PAIRS, show_pairs
from sdviz.ui.failures.rates import show_rates
from sdviz.ui.library import uri_of
from sdviz.ui.links import keep_link_values, restore_link_values, set_link_value
from sdviz.ui.missing import say_missing, show_missing_part
from sdviz.ui.scores import ScoredSets, scored_sets
from sdviz.ui.session import chosen_set, opener, sample, score_controls, set_shared
from sdviz.ui.text import counted, minute, plain
from sdviz.ui.theme import set_name
from sdviz.ui.widgets import download

SHOWS = "every OOD image that the detector let through and every ID image that it flagged, worst first"
MISSED, ALARMS, PAIRS_VIEW = "missed", "alarms", "pairs"
# keys of the address without a widget
SHOW, CLASS, CLUSTER = "f_show", "f_class", "f_cluster"
OWN = (SHOW, CLASS, CLUSTER, PAIRS)
EVERY = ""
TESTED = "test"
OOD_KINDS = {TESTED: "test images", "validation": "validation images", "sd": "SD outliers"}
PICTURE_PX = 96
LOWEST_RECALL = 80.0


def show_failures(bundle: Bundle, entered: bool) -> None:
    """Draws the page below its title."""
    if entered:
        restore_link_values(OWN)
    _page(*open_evidence(bundle))


@st.fragment
def _page(evidence: Evidence, library: PictureLibrary) -> None:
    keep_link_values(OWN)
    no_detector = "this bundle has no detector: it makes outliers, and calls nothing OOD"
    try:
        view = scored_sets(evidence, library, no_detector)
        if not evidence.ood_sets and not len(evidence.id_set):
            raise MissingPart("this bundle has no scored images")
    except MissingPart as error:
        show_missing_part(error, SHOWS)
        return
    sets = evidence.sets_at_hand
    missed = find_failures(sets, view.scores, view.threshold, False)
    alarms = find_failures(sets, view.scores, view.threshold, True)
    _threshold_row(view, missed, alarms)
    show = _choose_view(missed, alarms)
    if show == PAIRS_VIEW:
        show_pairs(view)
    else:
        _failures(view, alarms if show == ALARMS else missed, show == ALARMS)
    _notes(view)


# --- controls -------------------------------------------------------------------------------------


def _threshold_row(view: ScoredSets, missed: Failures, alarms: Failures) -> None:
    """The slider that sets the threshold by the share of ID images that pass, and what that costs."""
    ordered = view.reference.id_scores
    recall = recall_of(ordered, view.threshold)
    # a threshold from a link may let fewer pass than the slider offers
    lowest = min(LOWEST_RECALL, float(np.floor(recall)))
    # the share that passes, as in the text, which may differ a little from the one asked for
    st.session_state["failures_recall"] = round(recall, 2)

    def move() -> None:
        wanted = float(st.session_state["failures_recall"])
        t = id_recall_threshold(ordered, wanted)
        set_shared("t", None if t == view.reference.threshold else repr(t))

    columns = st.columns([2.6, 4.3, 1.3], vertical_alignment="center")
    with columns[0]:
        st.slider(
            "Held-out ID images that pass, %",
            lowest,
            100.0,
            # a step smaller than one ID image would change nothing
            step=max(0.5, math.ceil(10_000 / len(ordered)) / 100),
            format="%.2f",
            key="failures_recall",
            on_change=move,
            help="Moves the threshold, here and on the other pages. 95 % is the usual one. More ID images that "
            "pass mean fewer false alarms and more missed OOD.",
        )
    n_id, n_generated = len(view.evidence.id_set), len(view.evidence.sets_at_hand.get(GENERATED, ()))
    of_what = f"; of {n_generated:,} generated ones " if n_generated else ", "
    columns[1].markdown(
        f"Threshold **{view.threshold:.4g}**: a score above it is called OOD. {recall:.2f} % of {n_id:,} "
        f"held-out ID images pass{of_what}**{counted(len(alarms), 'false alarm')}**. "
        f"{_missed_of_what(view, missed)}"
    )
    with columns[2], st.popover("Advanced", width="stretch"):
        score_controls(view.evidence, "failures")
        st.caption(f"The score is Eq. 6, now by {state.settings_text(view.settings)}.")


def _missed_of_what(view: ScoredSets, missed: Failures) -> str:
    """A sentence on how many OOD images are missed, in all and by kind of set."""
    n, wrong = dict.fromkeys(OOD_KINDS, 0), dict.fromkeys(OOD_KINDS, 0)
    for name, one in view.evidence.sets_at_hand.items():
        if one.role in ID_ROLES:
            continue
        kind = one.role if one.role in OOD_KINDS else TESTED
        n[kind] += len(one)
        wrong[kind] += int((missed.sets == name).sum())
    total = len(missed)
    text = f"Of {sum(n.values()):,} OOD images **{total:,} {'is' if total == 1 else 'are'} missed**"
    there = [kind for kind in OOD_KINDS if n[kind]]
    if there in ([], [TESTED]):
        return f"{text}."
    return f"{text}: {', '.join(f'{wrong[kind]:,} of {n[kind]:,} {OOD_KINDS[kind]}' for kind in there)}."


def _choose_view(missed: Failures, alarms: Failures) -> str:
    labels = {
        MISSED: f"Missed OOD: {len(missed):,}",
        ALARMS: f"False alarms: {len(alarms):,}",
        PAIRS_VIEW: "Near-duplicates",
    }
    show = str(st.session_state.get(SHOW, ""))
    if show not in labels:
        # when the image in use is a false alarm, show those
        show = ALARMS if sample() in set(alarms.ids.tolist()) else MISSED
    st.session_state["failures_show"] = show

    def choose() -> None:
        set_link_value(SHOW, st.session_state["failures_show"])
        # filters of the other view would match nothing here
        set_link_value(CLASS, "")
        set_link_value(CLUSTER, "")

    st.segmented_control(
        "Show",
        list(labels),
        format_func=labels.__getitem__,
        required=True,
        key="failures_show",
        on_change=choose,
        label_visibility="collapsed",
    )
    return show


def _filters(view: ScoredSets, found: Failures, sets: Sequence[str]) -> tuple[Failures, list[str]]:
    columns = st.columns(3)
    name = chosen_set(view.evidence)
    name = name if name in sets else EVERY
    with columns[0]:
        st.session_state["failures_set"] = name
        st.selectbox(
            "Set",
            [EVERY, *sets],
            format_func=lambda one: view.titles.get(one, "every set"),
            key="failures_set",
            on_change=lambda: set_shared("set", st.session_state["failures_set"] or None),
        )
    if name:
        found = found.only(found.sets == name)
    classes, clusters = np.full(len(found), "", object), np.full(len(found), "", object)
    for one in np.unique(found.sets).tolist():
        here, facts = found.sets == one, state.facts_of(view, one)
        classes[here] = facts.classes[found.rows[here]]
        clusters[here] = [view.cluster_name(int(c), "unknown") for c in facts.clusters[found.rows[here]]]
    keep = np.ones(len(found), bool)
    for column, label, link, every, values in (
        (columns[1], "Class", CLASS, "every class", classes),
        (columns[2], "Taken for cluster", CLUSTER, "every cluster", clusters),
    ):
        with column:
            wanted = _filter(label, link, every, sorted(set(values.tolist()) - {""}))
        keep &= (values == wanted) | (wanted == EVERY)
    return found.only(keep), [name] if name else list(sets)


def _filter(label: str, link: str, every: str, options: list[str]) -> str:
    key = f"failures_{link}"
    wanted = str(st.session_state.get(link, ""))
    wanted = wanted if wanted in options else EVERY
    st.session_state[key] = wanted
    st.selectbox(
        label,
        [EVERY, *options],
        format_func=lambda one: one or every,
        key=key,
        on_change=lambda: set_link_value(link, st.session_state[key]),
        disabled=not options,
    )
    return wanted


# --- the list -------------------------------------------------------------------------------------


def _failures(view: ScoredSets, found: Failures, false_alarms: bool) -> None:
    found_in = view.evidence.sets_at_hand.items()
    sets = [name for name, one in found_in if (one.role in ID_ROLES) == false_alarms]
    if not sets:
        st.info("This bundle has no OOD set with scores: nothing can be missed.")
        return
    shown, chosen = _filters(view, found, sets)
    # four pictures in a row from 1,024 px on
    columns = st.columns([3.35, 1.75], gap="medium")
    with columns[0]:
        if len(shown):
            _grid(view, shown)
        else:
            _no_failures(view, found, chosen, false_alarms)
    with columns[1]:
        show_detail(view, shown.ids)
    show_rates(view, chosen, false_alarms)


def _no_failures(view: ScoredSets, found: Failures, sets: Sequence[str], false_alarms: bool) -> None:
    n, limit = sum(len(view.evidence.shown_sets[name]) for name in sets), f"{view.threshold:.4g}"
    if len(found) and np.isin(found.sets, sets).any():
        st.info("No failure has this class and this cluster: clear one of the filters.")
        return
    if false_alarms:
        why, which = f"No false alarm: all {n:,} ID images checked score at or below {limit}.", "fewer"
    else:
        why, which = f"Nothing missed: all {n:,} OOD images checked score above {limit}.", "more"
    st.success(f"{why} Let {which} ID images pass, with the slider above, to see which come next.")


def _grid(view: ScoredSets, shown: Failures) -> None:
    page = state.page_of(shown.ids)
    rows = np.arange(page * state.AT_ONCE, min(len(shown), (page + 1) * state.AT_ONCE))
    pictures = state.pictures_of(view, shown.ids[rows].tolist())
    try:
        notes = state.notebook().read(view.bundle.hash)
    except NotesError:
        notes = {}
    chosen = sample() or str(shown.ids[0])
    cells = []
    for i, row in enumerate(rows):
        one = str(shown.ids[row])
        own_class = state.class_of(view, one, str(pictures.class_names[i]))
        note = notes.get(one)
        mark = f" ✎ {note.verdict or 'note'}" if note else ""
        cells.append(
            Cell(
                uri_of(pictures, i),
                f"{one}, {own_class or 'class unknown'}, score {shown.scores[row]:.4g}",
                view.colours[str(shown.sets[row])],
                own_class or set_name(str(shown.sets[row])),
                f"margin {shown.margins[row]:#.3g}{mark}",
                id=one,
                chosen=one == chosen,
            )
        )
    key = "failures_grid"
    picture_grid(cells, len(cells), key=key, size_px=PICTURE_PX, on_click=opener(key))
    say_missing(pictures)
    state.page_buttons(len(shown), page)
    frames = ", ".join(
        f':color[■]{{foreground="{view.colours[name]}"}} {plain(view.titles.get(name, name))}'
        for name in dict.fromkeys(shown.sets[rows].tolist())
    )
    has_sd = any(view.evidence.shown_sets[name].role == "sd" for name in set(shown.sets[rows].tolist()))
    made_of = ", of an SD outlier that of its source" if has_sd else ""
    st.caption(
        "Images on the wrong side of the threshold, the farthest from it first: the margin is how far. Under "
        f"each its own class{made_of}; its frame tells its set: {frames}. Click one, or press J and K, for the "
        "next."
    )


# --- notes ----------------------------------------------------------------------------------------


def _notes(view: ScoredSets) -> None:
    try:
        notes = list(state.notebook().read(view.bundle.hash).values())
    except NotesError as error:
        st.caption(f":material/lock: {plain(str(error))}")
        return
    st.markdown("**Verdicts and notes**")
    if not notes:
        st.caption(
            "None yet on this bundle's images. What you say about an image beside its picture is kept here."
        )
        return
    counts = tallies(notes)
    columns = st.columns([*[1] * len(counts), 1.4], vertical_alignment="center")
    for column, (verdict, count) in zip(columns, counts.items(), strict=False):
        column.metric(verdict, count)
    lines = provenance(view.bundle)
    with columns[-1]:
        file = f"sdviz-notes-{view.bundle.hash[:10]}.csv"
        download("CSV", lambda: notes_csv(notes, lines), file, key="failures_export", width="stretch")
    header = ("image", "set", "label", "score", "threshold", "verdict", "note", "author", "time")
    rows = [(n.id, *astuple(n.seen)[:4], n.verdict, n.text, n.author, minute(n.time)) for n in notes]
    with st.expander(f"All {len(notes):,}"):
        st.dataframe(pd.DataFrame(rows, columns=header), hide_index=True, key="failures_notes_table")
