"""The page Embeddings: a 2-D or 3-D view of feature space, through training or after it."""

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.imports import ImportFile
from sdviz.analysis.provenance import provenance
from sdviz.analysis.stored_layouts import USUAL_POINTS, View, figure_3_sets, find_stored, usual_sets
from sdviz.bundle import Bundle
from sdviz.projection import Layouts, LayoutSettings, fewest_points
from sdviz.ui.cache.background import GivenUp, Task
from sdviz.ui.cache.evidence import open_evidence
from sdviz.ui.cache.imports import imports_of
from sdviz.ui.cache.layouts import LayoutJob
from sdviz.ui.charts import Chart, offer_downloads
from sdviz.ui.charts.parts import Dots
from sdviz.ui.components.picture_sheets import TILES_A_SHEET, send_pictures
from sdviz.ui.components.scatter import Colouring, PanelTitle, scatter
from sdviz.ui.embeddings import hover_pictures
from sdviz.ui.embeddings.colours import (
    FIGURE_3,
    HELP,
    WAYS,
    colour_points,
    edges_of,
    score_of,
    texts_of,
)
from sdviz.ui.embeddings.selection import chosen_rows, points_csv, show_chosen, take_region
from sdviz.ui.embeddings.state import (
    PAGE,
    Known,
    by_pca,
    known_of,
    layout_store,
    mark_sample,
    moves_through_training,
    sets_in_order,
    sets_to_choose,
    titles_of,
)
from sdviz.ui.links import put_in_link, take_from_link
from sdviz.ui.missing import say_missing, show_missing_part
from sdviz.ui.page import VOTES, open_page
from sdviz.ui.session import set_shared
from sdviz.ui.text import about
from sdviz.ui.widgets import IN_LINK, choose_one, select_one

SHOWS = "ID images, OOD sets and SD outliers as points in feature space, each with its picture"
THROUGH, AFTER = "Through training", "After training"
METHODS = {"t-SNE": "tsne", "UMAP": "umap", "PCA": "pca"}
TITLES = {method: title for title, method in METHODS.items()}
ONE, TWO = "One, with a slider", "First and last"
COUNTS = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
HEIGHT_PX = 490
# a layout that takes longer gets a progress bar
AT_ONCE_SEC = 0.2
POLL_SEC = 0.5


@st.fragment
def show_embeddings(bundle: Bundle) -> None:
    """Draws the page below its title."""
    evidence, library = open_evidence(bundle)
    # generated images were not followed through training
    order = (AFTER, THROUGH) if evidence.stands_in else (THROUGH, AFTER)
    views = {name: sets_to_choose(evidence, name == THROUGH) for name in order}
    spaces = {one.name: file for file, one in imports_of(evidence).items() if one.n_features}
    views |= {one.name: sets_in_order(one.sets) for one in imports_of(evidence).values() if one.n_features}
    views = {name: sets for name, sets in views.items() if sets}
    if not views:
        show_missing_part("this bundle has no features: it has no detector, or was never measured", SHOWS)
        return
    wish, way, panels = _controls(evidence, views, spaces)
    if not wish.sets:
        st.info("Choose at least one set of images, above.")
        return
    try:
        known = known_of(evidence, library, wish)
    except MissingPart as error:
        show_missing_part(error, SHOWS)
        return
    needed = fewest_points(wish.layout.method)
    if len(known.points) < needed:
        st.info(
            f"{len(known.points):,} images are too few for this method, which needs {needed}: take **PCA**, or "
            "choose more sets."
        )
        return
    _points(known, wish, way, panels)


# --- controls -------------------------------------------------------------------------------------


def _controls(
    evidence: Evidence, views: dict[str, list[str]], spaces: dict[str, ImportFile]
) -> tuple[View, str, str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = choose_one(
            "Feature space",
            list(views),
            f"{PAGE}_view",
            help="Through training: a few hundred images of each set, followed from epoch to epoch. After "
            f"training: as many as you like, once.{' Others: features that were imported.' if spaces else ''}",
        )
        method = choose_one("Method", list(METHODS), f"{PAGE}_method")
        dims = 3 if choose_one("Dimensions", ["2-D", "3-D"], f"{PAGE}_dims") == "3-D" else 2
        followed = view == THROUGH and moves_through_training(evidence)
        panels = choose_one("Epochs", [TWO, ONE], f"{PAGE}_panels") if followed else ONE
        st.button(
            "Figure 3",
            key=f"{PAGE}_figure_3",
            icon=":material/auto_awesome:",
            help="As the paper draws it: t-SNE of ID, one OOD set and SD outliers, coloured by cluster, early "
            "in detector training beside the last epoch.",
            on_click=_as_figure_3,
            args=(view if THROUGH not in views else THROUGH, tuple(figure_3_sets(evidence, views[view]))),
        )
    choices = views[view]
    key = f"{PAGE}_sets"
    if key in st.session_state:
        # another view or bundle may have other sets
        st.session_state[key] = [one for one in st.session_state[key] if one in choices]
    usual = usual_sets(evidence, choices)
    take_from_link(key, choices, many=True)
    titles = titles_of(evidence)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sets = st.multiselect(
            "Images from",
            choices,
            default=None if key in st.session_state else usual,
            format_func=lambda one: titles.get(one, one),
            key=key,
            width="stretch",
            persist_state="session",
        )
        put_in_link(key, [one for one in choices if one in sets], usual)
        theirs = [score_of(one.name) for one in imports_of(evidence).values() if one.scores]
        way = select_one(
            "Colour by",
            [*WAYS, *theirs],
            f"{PAGE}_colour",
            width=190,
            help="  \n".join(f"**{name}**: {text}" for name, text in HELP.items()),
            **IN_LINK,
        )
        with st.popover("Advanced", icon=":material/tune:"):
            n = st.select_slider(
                "Points at most",
                COUNTS,
                USUAL_POINTS,
                key=f"{PAGE}_n",
                help="Taken evenly from the sets; a set that has fewer gives all of its images, so more points "
                "than the sets have change nothing. Through training a few hundred of each set are followed. "
                "t-SNE and UMAP take minutes for 10,000.",
                **IN_LINK,
            )
            about_it = "About how many neighbours a point keeps close."
            perplexity = st.slider(
                "Perplexity of t-SNE", 2, 100, 30, key=f"{PAGE}_perplexity", help=about_it, **IN_LINK
            )
            about_it = "The same for UMAP: few show small groups, many the whole."
            n_neighbors = st.slider(
                "n_neighbors of UMAP", 2, 100, 15, key=f"{PAGE}_neighbors", help=about_it, **IN_LINK
            )
            seed = st.number_input("Seed of the layout", 0, 9_999, 0, key=f"{PAGE}_seed", **IN_LINK)
            own = evidence.bundle.manifest.score
            unit = st.toggle(
                "Unit length",
                own.normalize if own else True,
                key=f"{PAGE}_unit",
                help="Brings features to length 1 first. It begins as the score of this bundle takes them.",
                **IN_LINK,
            )
    layout = LayoutSettings(METHODS[method], dims, float(perplexity), int(n_neighbors), int(seed))
    # in the order of the list: the order of clicks does not change the layout
    in_order = tuple(one for one in choices if one in sets)
    found = View(view == THROUGH, in_order, int(n), bool(unit), layout, spaces.get(view))
    return found, way, panels


def _as_figure_3(view: str, sets: tuple[str, ...]) -> None:
    wanted = {"view": view, "method": "t-SNE", "dims": "2-D", "panels": TWO, "colour": FIGURE_3}
    for name, value in (wanted | {"sets": list(sets)}).items():
        st.session_state[f"{PAGE}_{name}"] = value


# --- the points -----------------------------------------------------------------------------------


def _points(known: Known, wish: View, way: str, panels: str) -> None:
    place = st.container()
    try:
        layouts, method, job = _layouts(known, wish)
    except ValueError as error:
        st.error(f"No layout: {error}.", icon=":material/error:")
        return
    name = f"{wish.layout.key(known.points.features)[:20]}-{method}"
    shown = colour_points(known, way)
    key = f"{PAGE}_scatter"

    def on_select() -> None:
        take_region(st.session_state[key].selected, known, layouts, name, shown)

    rows = chosen_rows(known)
    frames = len(known.points.frames)
    pictures = hover_pictures.name_of_pictures(known)
    lacking = st.session_state.get(f"{PAGE}_lacking", {}).get(pictures, hover_pictures.Lacking((), False))
    with place:
        if job is not None:
            _progress(job, wish)
        marked, about_it = mark_sample(known, wish.unit_length)
        clicked = scatter(
            layouts.points,
            key=key,
            layout=name,
            frames=[PanelTitle(one, _note(layouts, i, method)) for i, one in enumerate(known.points.frames)],
            panels=[min(1, frames - 1), frames - 1] if panels == TWO and frames > 1 else [],
            ids=known.points.ids,
            texts=texts_of(known),
            colouring=shown,
            edge=edges_of(known),
            sheets=pictures,
            lacking=lacking.rows,
            are_coming=lacking.are_coming,
            marked=marked,
            chosen=rows.tolist(),
            height=HEIGHT_PX,
            on_select=on_select,
        )
        if about_it:
            st.caption(about_it)
        _caption(known, wish, method, layouts, shown)
        say_missing(lacking)
    if clicked:
        _open(known, clicked)
    lines = _provenance(known, wish, method)
    from_gallery = show_chosen(known, layouts, rows, lines)
    if from_gallery:
        _open(known, from_gallery)
    _send_sheets(known, pictures, lacking)


def _layouts(known: Known, wish: View) -> tuple[Layouts, str, LayoutJob | None]:
    """Returns the chosen layout, its method and None. Until it is computed: a PCA, "pca" and the job."""
    features, settings = known.points.features, wish.layout
    if settings.method == "pca":
        return by_pca(features, settings.dims), "pca", None
    # looked for in every run: it may have been stored since
    found = find_stored(known.evidence, known.points, wish.unit_length, settings)
    if found is not None:
        return found, settings.method, None
    store = layout_store()
    found = store.find(features, settings)
    if found is not None:
        return found, settings.method, None
    for _ in range(2):
        job = store.start(features, settings)
        if not job.task.wait(AT_ONCE_SEC):
            return by_pca(features, settings.dims), "pca", job
        try:
            return job.task.result(), settings.method, None
        except GivenUp:
            continue  # no page waited when its turn came
    raise ValueError("the layout was given up: choose it once more")


@st.fragment(run_every=POLL_SEC)
def _progress(job: LayoutJob, wish: View) -> None:
    if job.task.wait(0.0):
        st.rerun()
    name = TITLES[wish.layout.method]
    if job.task.is_waiting:
        st.progress(0.0, f"{name} waits for another layout. Below is a PCA.")
        return
    left = max(0.0, job.task.elapsed_sec / max(job.share, 0.02) - job.task.elapsed_sec)
    st.progress(job.share, f"{name} is being laid out, {about(left)} to go. Until then you see a PCA.")


def _note(layouts: Layouts, frame: int, method: str) -> str:
    trust = layouts.trust[frame]
    note = "" if np.isnan(trust) else f"trustworthiness {trust:.3f}"
    if method == "pca" and not np.isnan(layouts.explained[frame]).any():
        note += f", {100 * layouts.explained[frame].sum():.0f} % of the variance"
    return note.removeprefix(", ")


def _caption(known: Known, wish: View, method: str, layouts: Layouts, shown: Colouring) -> None:
    columns = st.columns([6, 1.1], vertical_alignment="center")
    what = {
        "tsne": "t-SNE keeps neighbours together; sizes of groups and gaps between them mean nothing",
        "umap": "UMAP keeps neighbours together, and some of what lies between groups",
        "pca": "PCA shows the widest directions of feature space, to scale; all others are hidden",
    }[method]
    p, followed = known.points, ""
    if p.same_in:
        followed = (
            f" One picture stands for all {len(p.same_in)} epochs followed, which are the same: the encoder "
            "was frozen, and training reached the heads alone."
        )
    elif len(p.frames) > 1:
        followed = (
            " Epochs have one seed and are turned to lie over each other, so that the eye can follow a point."
        )
    where = f"of {p.imported}" if p.imported else "in the detector"
    columns[0].caption(
        f"{len(p):,} images; each point is one, by its {p.features.shape[2]} features {where}. "
        f"{what}.{followed} Trustworthiness, 0 to 1: how many of the neighbours on the page are neighbours in "
        "feature space."
    )
    with columns[1]:
        _save(known, wish, method, layouts, shown)


def _save(known: Known, wish: View, method: str, layouts: Layouts, shown: Colouring) -> None:
    """Offers the last epoch as a figure and all epochs as a table."""
    lines = _provenance(known, wish, method)
    xy = layouts.points[-1]
    chart = Chart(
        _title(known, method, shown),
        "axis 1, no unit",
        "axis 2, no unit",
        [
            Dots(group.name, xy[shown.group == row, 0], xy[shown.group == row, 1], group.colour, 4)
            for row, group in enumerate(shown.groups)
        ],
        height=HEIGHT_PX,
    )
    offer_downloads(
        chart,
        lines,
        key=f"{PAGE}_save",
        more=("CSV, all epochs", lambda: points_csv(known, layouts, np.arange(len(known.points)), lines)),
    )


def _title(known: Known, method: str, shown: Colouring) -> str:
    """The figure's title, as in "t-SNE of the features after training, coloured by set"."""
    frame = known.points.frames[-1].removesuffix(" (last)")
    when = frame if len(known.points.frames) == 1 else f"at {frame}"
    when = f"in {frame}" if known.points.same_in else when
    when = f"of {frame}" if known.points.imported else when
    how = shown.name if shown.name == FIGURE_3 else f"by {shown.name}"
    return f"{TITLES[method]} of the features {when}, coloured {how}"


def _provenance(known: Known, wish: View, method: str) -> dict[str, str]:
    settings, layout = known.settings, wish.layout
    return provenance(
        known.bundle,
        features=f"imported as {known.points.imported}" if known.points.imported else None,
        layout=f"{method}, {layout.dims}-D",
        perplexity=layout.perplexity if method == "tsne" else None,
        n_neighbors=layout.n_neighbors if method == "umap" else None,
        layout_seed=layout.seed if method != "pca" else None,
        unit_length=wish.unit_length,
        images=", ".join(wish.sets),
        score=f"k {settings.k}, alpha {settings.alpha:g}" if settings else None,
        threshold=known.now.threshold,
    )


def _open(known: Known, one: str) -> None:
    for row in np.flatnonzero(known.points.ids == one)[:1]:
        is_scored = known.points.scored_rows[row] >= 0
        set_shared("sample", one)
        set_shared("set", str(known.points.sets[row]) if is_scored else None)
        open_page(VOTES)


# --- pictures for the hover card -------------------------------------------------------------------


def _send_sheets(known: Known, name: str, drawn: hover_pictures.Lacking) -> None:
    """Sends the pictures of all points to the browser.

    `drawn`: which points had no picture when the page was drawn. If these have changed, it is drawn again.
    """
    made = hover_pictures.generated_outliers(known, name)
    parts: list[hover_pictures.Lacking] = []
    for number in range(-(-len(known.points) // TILES_A_SHEET)):
        sheet, lacking = hover_pictures.sheet_of(known, name, number, made is None or made.is_done)
        parts.append(lacking)
        send_pictures(name, number, sheet, known.bundle.manifest.image_size, key=f"{PAGE}_sheet_{number}")
    are_coming = made is not None and not made.is_done
    if made is not None and are_coming:
        _await_outliers(made)
    if (now := hover_pictures.lacking_in_all(parts, are_coming)) != drawn:
        st.session_state[f"{PAGE}_lacking"] = {name: now}
        st.rerun()


@st.fragment(run_every=2 * POLL_SEC)
def _await_outliers(made: Task[None]) -> None:
    if made.is_done:
        st.rerun()
