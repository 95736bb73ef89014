"""One image on the page Failures: its score, the nearest training image, verdict and note."""

import hashlib
from collections.abc import Callable

import numpy as np
import streamlit as st

from sdviz.analysis import Pictures
from sdviz.analysis.notes import VERDICTS, NotesError, Seen
from sdviz.analysis.tables import ID_ROLES
from sdviz.analysis.votes import find_sample
from sdviz.ui.cluster_names import cluster_before
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.failures import state
from sdviz.ui.guests import GuestError, author, check_may_write, refusal
from sdviz.ui.library import uri_of
from sdviz.ui.missing import say_missing, why_not_found
from sdviz.ui.page import VOTES, open_page
from sdviz.ui.pictures import NEUTRAL_COLOUR, OUTLIER_COLOUR, TRAIN_COLOUR
from sdviz.ui.scores import ScoredSets
from sdviz.ui.session import sample, set_shared
from sdviz.ui.text import code_span, minute, plain, short_of_all
from sdviz.ui.theme import ROLE_NAMES

BIG_PX = 160
_MAX_ID_SHOWN = 60
_PROBLEM = "failures_note_problem"


def show_detail(view: ScoredSets, ids: np.ndarray) -> None:
    """Shows the image in use, else the first of the list `ids`."""
    one = sample() or (str(ids[0]) if len(ids) else "")
    if not one:
        return
    _steps(ids)
    outlier = view.library.outlier_row(one)
    seen = _outlier(view, one, outlier) if outlier is not None else _image(view, one)
    if seen is None:
        return
    _note(view, one, seen)
    if st.button(
        "Open in Sample votes", key="failures_open_votes", icon=":material/how_to_vote:", width="stretch"
    ):
        set_shared("sample", one)
        open_page(VOTES)


def _steps(ids: np.ndarray) -> None:
    """Shows buttons for the next and the previous image, J and K on the keyboard."""
    at, n = state.position(ids), len(ids)
    before = at - 1 if at is not None else -1
    after = at + 1 if at is not None else (1 if not sample() else 0)
    columns = st.columns(2)
    for column, label, key, name, to in (
        (columns[0], "Back", "K", "previous", before),
        (columns[1], "Next", "J", "next", after),
    ):
        there = 0 <= to < n
        column.button(
            label,
            key=f"failures_{name}",
            shortcut=key,
            on_click=set_shared,
            args=("sample", str(ids[to]) if there else None),
            disabled=not there,
            width="stretch",
        )
    where = at if at is not None else (0 if n and not sample() else None)
    st.caption("Not in this list" if where is None else f"{where + 1:,} of {n:,} in this list")


def _image(view: ScoredSets, one: str) -> Seen | None:
    """Shows an image of a scored set, or one without a score; None where there is no such image."""
    place, near = state.place_of(view, one), state.nearest_of(view, one)
    pictures = state.pictures_of(view, [one, *([near.id] if near else [])])
    if place is None and not pictures.found[0] and find_sample(view.evidence, one) is None:
        st.warning(
            f"There is no image {code_span(one, _MAX_ID_SHOWN)} in this bundle, nor in a set on this machine: "
            f"{why_not_found(pictures)} Pick any other.",
            icon=":material/image_not_supported:",
        )
        return None
    own_class = state.class_of(view, one, str(pictures.class_names[0]))
    colour = view.colours.get(place[0], NEUTRAL_COLOUR) if place else NEUTRAL_COLOUR
    cells = [Cell(uri_of(pictures, 0), one, colour, own_class or "class unknown", one)]
    heads = [Label("this image")]
    if near is not None:
        small = f"{near.id}, distance {near.distance:.3f}"
        cells.append(_training_cell(pictures, near.id, view.cluster_name(near.cluster), small))
        heads.append(Label("nearest training image"))
    _grid(cells, heads, pictures)
    if place is None:
        st.info("This image is in none of the scored sets: it has no score at this threshold.")
        return Seen("", own_class)
    name, row = place
    role = view.evidence.shown_sets[name].role
    s = view.scores[name]
    total = float(s.total[row])
    _say_score(view, role, total)
    cluster = int(state.facts_of(view, name).clusters[row])
    st.caption(
        f"Distance part {float(s.distance[row]):.4g} + α {view.settings.alpha:g} x {int(s.votes[row])} votes "
        f"of {view.settings.k}. From {plain(view.titles.get(name, name))}"
        + (f"; the detector takes it for {plain(view.cluster_name(cluster))}." if cluster >= 0 else ".")
    )
    return Seen(name, own_class, total, view.threshold, state.settings_text(view.settings))


def _say_score(view: ScoredSets, role: str, total: float) -> None:
    above, percentile = total > view.threshold, float(view.reference.percentile(np.array([total]))[0])
    margin = abs(total - view.threshold)
    if role in ID_ROLES:
        verdict, icon = ("False alarm", "error") if above else ("Rightly called ID", "check_circle")
    else:
        verdict, icon = ("Rightly called OOD", "check_circle") if above else ("Missed OOD", "error")
    side = "above" if above else "below"
    st.markdown(
        f":material/{icon}: **{verdict}** ({ROLE_NAMES.get(role, role)}): score **{total:.4g}**, "
        f"{f'{margin:#.3g} {side}' if margin else 'just at'} the threshold {view.threshold:.4g}. "
        f"More OOD than {short_of_all(percentile)} of held-out ID."
    )


def _outlier(view: ScoredSets, one: str, row: int) -> Seen:
    """Shows an outlier of the bank and its source, a training image."""
    table = view.evidence.outliers
    source = str(table.source_ids[row])
    pictures = state.pictures_of(view, [one, source])
    was, target = (view.cluster_name(int(column[row])) for column in (table.labels, table.target_labels))
    recipe = table.recipe(row)
    cells = [
        Cell(uri_of(pictures, 0), one, OUTLIER_COLOUR, f"{was}, told {target}", one),
        _training_cell(pictures, source, was, source),
    ]
    _grid(cells, [Label("this outlier"), Label("its source")], pictures)
    st.markdown(
        f"**SD outlier**: {plain(was)}, told {plain(target)}, at S = {recipe.start_timestep} "
        f"(σ {table.sigma(row):.2f}), w = {recipe.guidance_scale:g}. "
        "It should show another object on the same background."
    )
    settings = f"S = {recipe.start_timestep}, w = {recipe.guidance_scale:g}"
    return Seen("SD outliers", f"{was}, told {target}", settings=settings)


def _training_cell(pictures: Pictures, one: str, cluster: str, small: str) -> Cell:
    """The cell of a training image, the second of the pictures, with its cluster and class."""
    its_class = str(pictures.class_names[1])
    text, small = f"{cluster_before(cluster)}{cluster}", small + (f", is {its_class}" if its_class else "")
    return Cell(uri_of(pictures, 1), one, TRAIN_COLOUR, text, small)


def _grid(cells: list[Cell], heads: list[Label], pictures: Pictures) -> None:
    picture_grid(cells, len(cells), key="failures_pair", size_px=BIG_PX, column_names=heads, shrink=True)
    say_missing(pictures)


def _note(view: ScoredSets, one: str, seen: Seen) -> None:
    book, bundle_hash = state.notebook(), view.bundle.hash
    digest = hashlib.sha256(f"{bundle_hash} {one}".encode()).hexdigest()[:12]
    verdict_key, text_key = f"failures_verdict_{digest}", f"failures_note_{digest}"
    try:
        kept = book.read(bundle_hash).get(one)
    except NotesError as error:
        st.caption(f":material/lock: {plain(str(error))}")
        return
    why = refusal() or book.why_not()

    def write(put: Callable[[str, str, str, Seen, str], None], key: str) -> None:
        try:
            check_may_write()
            put(bundle_hash, one, st.session_state[key] or "", seen, author())
        except (NotesError, GuestError) as error:
            st.session_state[_PROBLEM] = str(error)

    problem = st.session_state.pop(_PROBLEM, "")
    if not problem:
        # the note may have been changed in another browser
        st.session_state[verdict_key] = (kept.verdict or None) if kept else None
        st.session_state[text_key] = kept.text if kept else ""
    st.pills(
        "Verdict",
        VERDICTS,
        key=verdict_key,
        on_change=write,
        args=(book.set_verdict, verdict_key),
        disabled=bool(why),
        wrap=True,
        help="really OOD: the detector is to blame. label wrong: the set is. semantics kept, nuisance lost: of "
        "an outlier that shows the same object, or another background.",
    )
    st.text_area(
        "Note",
        key=text_key,
        height=80,
        max_chars=2000,
        on_change=write,
        args=(book.set_text, text_key),
        disabled=bool(why),
        placeholder="What do you see?",
        label_visibility="collapsed",
    )
    if problem or why:
        st.caption(f":material/lock: {plain(problem or why)}")
    elif kept:
        by = f", by {plain(kept.author)}" if kept.author else ""
        st.caption(f"Kept {minute(kept.time)} UTC beside the runs{by}.")
    else:
        st.caption("A verdict or note is kept beside the runs, for everybody on this machine.")
