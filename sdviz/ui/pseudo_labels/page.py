"""The page Pseudo-labels: the clusters, with their most and least certain images."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence, MissingPart, PictureLibrary, Pictures, PseudoLabels
from sdviz.analysis.clusters import ClusterFacts, cluster_facts
from sdviz.bundle import Bundle
from sdviz.ui.cache.evidence import open_evidence
from sdviz.ui.cache.kept import kept
from sdviz.ui.cluster_names import TRUTH, with_known_classes
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.library import uri_of
from sdviz.ui.links import keep_link_values, restore_link_values, set_link_value
from sdviz.ui.missing import say_missing, show_missing_part
from sdviz.ui.pseudo_labels.charts import show_charts
from sdviz.ui.pseudo_labels.find import find_field, rename_field, show_found, upload_field
from sdviz.ui.pseudo_labels.known_classes import known_classes, show_truth
from sdviz.ui.pseudo_labels.state import ClusterView
from sdviz.ui.session import opener, sample
from sdviz.ui.text import counted, ordinal, percent, plain
from sdviz.ui.theme import cluster_colour

SHOWS = "each cluster of the training images: its size, its surest and least sure images, what is in it"
# a key of the address without a widget; its value is the number of a cluster
CLUSTER = "cluster"
ALL = -1
PICTURE_PX = 96
IN_A_ROW = 4  # of the surest, and as many of the least sure
OF_ONE = 20
ROWS_AT_ONCE = 20


# labels, facts and the row of each id
Found = tuple[PseudoLabels, ClusterFacts, dict[str, int]]


@kept("pseudo-labels")
def _found(evidence: Evidence, generated: bool) -> Found:
    labels = evidence.generated_labels if generated else evidence.pseudo_labels
    facts = cluster_facts(labels, evidence.bundle.n_clusters)
    return labels, facts, {one: row for row, one in enumerate(labels.ids.tolist())}


def show_pseudo_labels(bundle: Bundle, entered: bool) -> None:
    """Draws the page below its title."""
    if entered:
        restore_link_values((CLUSTER, TRUTH))
    evidence, library = open_evidence(bundle)
    try:
        found = _found(evidence, False)
    except (MissingPart, ValueError) as error:
        show_missing_part(str(error), SHOWS)
        return
    _page(evidence, library, found)


@st.fragment
def _page(evidence: Evidence, library: PictureLibrary, found: Found) -> None:
    keep_link_values((CLUSTER, TRUTH))
    # made in every run, since names may change
    clusters = pictured = ClusterView(evidence, library, *found, generated=False)
    if evidence.stands_in:
        pictured = ClusterView(evidence, library, *_found(evidence, True), generated=True)
    cluster, with_truth = _controls(pictured)
    _summary(clusters)
    show_found(pictured if sample() in pictured.row_of else clusters)
    classes = known_classes(evidence, clusters.labels.ids) if with_truth else None
    if cluster == ALL:
        _overview(pictured)
    else:
        _one_cluster(pictured, cluster, None if pictured.generated else classes)
    show_charts(clusters, cluster)
    if classes is not None:
        show_truth(clusters, classes)


def chosen_cluster(n_clusters: int) -> int:
    """The cluster in the address, else `ALL`."""
    text = str(st.session_state.get(CLUSTER, ""))
    return int(text) if text.isascii() and text.isdigit() and int(text) < n_clusters else ALL


def _choose_cluster() -> None:
    value = st.session_state["pseudo_labels_cluster"]
    set_link_value(CLUSTER, "" if value == ALL else str(value))


def _choose_truth() -> None:
    set_link_value(TRUTH, "1" if st.session_state["pseudo_labels_truth"] else "")


def _controls(clusters: ClusterView) -> tuple[int, bool]:
    n = clusters.bundle.n_clusters
    cluster = chosen_cluster(n)
    st.session_state["pseudo_labels_cluster"] = cluster
    st.session_state["pseudo_labels_truth"] = with_known_classes()
    # a narrow window breaks it into two rows instead of cutting texts
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Cluster",
            [ALL, *range(n)],
            format_func=lambda one: "all clusters" if one == ALL else clusters.names[one],
            key="pseudo_labels_cluster",
            on_change=_choose_cluster,
            width=200,
        )
        find_field(clusters)
        upload_field(clusters)
        rename_field(clusters, cluster)
        st.toggle(
            "Known classes",
            key="pseudo_labels_truth",
            on_change=_choose_truth,
            help="Compares clusters with the images' own classes, where these are known, and says on every "
            "page which class a cluster often is. Off, because nothing here is chosen by them: a set without "
            "labels makes the very same clusters.",
            width="content",
        )
    return cluster, st.session_state["pseudo_labels_truth"]


def _summary(clusters: ClusterView) -> None:
    sizes, n = clusters.facts.sizes, len(clusters.labels.ids)
    if not n:
        st.info("This bundle has no training image in its table of pseudo-labels.")
        return
    sure = float((clusters.labels.confidence >= 0.99).mean())
    st.caption(
        f"{n:,} training image{'s' * (n != 1)} in {counted(len(sizes), 'cluster')}, labels from "
        f"{plain(clusters.bundle.manifest.labels_from)}: {sizes.min():,} to {sizes.max():,} images each. "
        f"The clusterer is at least 99 % sure of {percent(sure)} of them."
    )


def _overview(clusters: ClusterView) -> None:
    names, first = clusters.names, 0
    n = len(names)
    if n > ROWS_AT_ONCE:
        pages = [f"{i + 1} to {min(i + ROWS_AT_ONCE, n)}" for i in range(0, n, ROWS_AT_ONCE)]
        page = st.selectbox("Clusters", pages, key="pseudo_labels_rows", width=200)
        first = ROWS_AT_ONCE * pages.index(page)
    shown = range(first, min(first + ROWS_AT_ONCE, n))
    rows: list[int] = []
    for cluster in shown:
        order = clusters.facts.order[cluster].tolist()
        sure, unsure = order[:IN_A_ROW], order[IN_A_ROW:][-IN_A_ROW:]
        rows += sure + [-1] * (IN_A_ROW - len(sure)) + [-1] * (IN_A_ROW - len(unsure)) + unsure
    pictures = _pictures(clusters, rows)
    picture_rows = iter(range(len(pictures.images)))
    cells = [
        Cell("", "", "transparent") if row < 0 else _cell(clusters, pictures, next(picture_rows), row)
        for row in rows
    ]
    sizes, mean = clusters.facts.sizes, clusters.facts.mean_confidence
    heads = [
        Label(
            names[c],
            f"{sizes[c]:,} {'generated' if clusters.generated else 'images'}"
            + (f", {percent(mean[c])} sure on average" if sizes[c] else ""),
        )
        for c in shown
    ]
    # above each picture, since a narrow window shows the columns in two blocks
    tops = [Label("surest", ordinal(i + 1)) for i in range(IN_A_ROW)]
    tops += [Label("least sure", ordinal(IN_A_ROW - i)) for i in range(IN_A_ROW)]
    picture_grid(
        cells,
        2 * IN_A_ROW,
        key="pseudo_labels_overview",
        size_px=PICTURE_PX,
        row_names=heads,
        column_names=tops,
        head_px=132,
        on_click=opener("pseudo_labels_overview"),
    )
    st.caption(
        f"Each row is a cluster, by the {IN_A_ROW} images that the clusterer is surest of and the {IN_A_ROW} "
        "that it is least sure of, with its confidence under each, 0 to 100 %. In a narrow window the least "
        "sure ones come in a second block, below all the surest. Click one to read about it above."
    )


def _one_cluster(clusters: ClusterView, cluster: int, classes: np.ndarray | None) -> None:
    order = clusters.facts.order[cluster].tolist()
    if not order:
        st.info(f"No {clusters.kind} image is in {plain(clusters.title(cluster, 'the cluster '))}.")
        return
    half = min(OF_ONE, -(-len(order) // 2))
    parts = [("Surest", order[:half]), ("Least sure", order[half:][-OF_ONE:][::-1])]
    pictures = _pictures(clusters, [row for _, rows in parts for row in rows])
    at = 0
    for title, rows in parts:
        if not rows:
            continue
        st.markdown(f"**{title}** of {len(order):,}")
        cells = []
        for row in rows:
            note = "" if classes is None else f"is {classes[row]}" if classes[row] else "class unknown"
            cells.append(_cell(clusters, pictures, at, row, note))
            at += 1
        key = f"pseudo_labels_{'sure' if title == 'Surest' else 'unsure'}"
        picture_grid(cells, len(cells), key=key, size_px=PICTURE_PX, on_click=opener(key))
    st.caption(
        "Images by the clusterer's confidence, in percent under each. The least sure ones are where two "
        "clusters meet, or where an image does not show what its neighbours show. Click one to read about it."
    )


def _cell(clusters: ClusterView, pictures: Pictures, at: int, row: int, note: str = "") -> Cell:
    """The cell of the image in a row, whose picture is `pictures.images[at]`."""
    one, cluster = str(clusters.labels.ids[row]), int(clusters.labels.labels[row])
    sure = percent(clusters.labels.confidence[row], 2)
    alt = f"{one}, {clusters.title(cluster)}, {sure} sure"
    picture = uri_of(pictures, at)
    return Cell(picture, alt, cluster_colour(cluster), sure, note, id=one, chosen=one == sample())


def _pictures(clusters: ClusterView, rows: Sequence[int]) -> Pictures:
    pictures = clusters.library.show(clusters.labels.ids[[row for row in rows if row >= 0]])
    say_missing(pictures)
    return pictures
