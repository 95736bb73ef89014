"""Finds the cluster of an image by its id or from an upload, and renames clusters."""

import numpy as np
import streamlit as st

from sdviz.analysis.cluster_names import NamesError, rename
from sdviz.ui.cluster_names import cluster_before, names_file, usual_names
from sdviz.ui.components.picture_grid import Cell, picture_grid
from sdviz.ui.guests import GuestError, check_may_write, refusal
from sdviz.ui.library import uri_of
from sdviz.ui.missing import why_not_found
from sdviz.ui.outliers import cluster_of
from sdviz.ui.page import VOTES, open_page
from sdviz.ui.pictures import data_uri
from sdviz.ui.pseudo_labels.state import ClusterView
from sdviz.ui.session import sample, set_shared
from sdviz.ui.text import percent, plain
from sdviz.ui.theme import cluster_colour
from sdviz.ui.uploads import NO_CLUSTERER_FOR_UPLOADS, picture_uploader, prepared_uploads

MAX_UPLOADS = 8
_PROBLEM = "pseudo_labels_problem"
# the text of the field; and an id that was not found, with the image in use at that moment
_FIND, _NOT_FOUND = "pseudo_labels_find", "pseudo_labels_not_found"


def find_field(clusters: ClusterView) -> None:
    """Shows a field for an id; the image found becomes the one in use on every page."""
    ids = clusters.labels.ids

    def find() -> None:
        wanted = str(st.session_state[_FIND]).strip()
        one = _full_id(wanted, ids) if wanted else ""
        st.session_state[_NOT_FOUND] = ("", "")
        if not wanted or one in ids or clusters.show_pictures([one]).found[0]:
            set_shared("sample", one or None)
        else:
            set_shared("sample", None)
            st.session_state[_NOT_FOUND] = (wanted, sample())

    st.text_input(
        "Find an image",
        key=_FIND,
        placeholder=str(ids[0]) if len(ids) else "an id",
        on_change=find,
        help=f"The id of any image that is on this machine, or the end of a {clusters.kind} image's id.",
        width=220,
    )


def _close() -> None:
    st.session_state[_FIND], st.session_state[_NOT_FOUND] = "", ("", "")
    set_shared("sample", None)


def _full_id(wanted: str, ids: np.ndarray) -> str:
    """The first id that ends in the text, else the text."""
    ending = ids[np.char.endswith(ids, wanted)] if len(ids) else ids
    return wanted if wanted in ending or not len(ending) else str(ending[0])


def show_found(clusters: ClusterView) -> None:
    """Shows the image in use: its picture, cluster, confidence, and a button to its votes."""
    # an id that was not found is shown until another image is chosen
    not_found, then = st.session_state.get(_NOT_FOUND, ("", ""))
    one = not_found if not_found and then == sample() else sample()
    if not one:
        return
    bundle, labels, facts = clusters.bundle, clusters.labels, clusters.facts
    with st.container(border=True):
        pictures = clusters.show_pictures([one])
        row, cluster = clusters.row_of.get(one), -1
        if row is not None:
            cluster, sure = int(labels.labels[row]), float(labels.confidence[row])
            of = facts.sizes[cluster]
            says = (
                f"{_bold_name(clusters.names[cluster])}, {percent(sure, 2)} sure: place "
                f"{facts.rank[row] + 1:,} of {of:,} in its cluster, the surest first. A {clusters.kind} image."
            )
        elif not pictures.found[0]:
            says = f"not found: {why_not_found(pictures)}"
        elif bundle.clusterer is None:
            says = "no training image, and this bundle has no clusterer that could name its cluster."
        else:
            cluster, sure = cluster_of(bundle, pictures.images[0])
            says = f"{_bold_name(clusters.names[cluster])}, {percent(sure, 2)} sure: the clusterer says so."
        columns = st.columns([1.5, 3.7, 2.6], vertical_alignment="center")
        with columns[0]:
            cell = Cell(uri_of(pictures, 0), one, cluster_colour(cluster))
            picture_grid([cell], 1, key="pseudo_labels_found", size_px=96)
        columns[1].markdown(f"{plain(one)}: {says}")
        with columns[2]:
            go = st.button(
                "Open in Sample votes",
                key="pseudo_labels_open_votes",
                icon=":material/how_to_vote:",
                width="stretch",
                disabled=not pictures.found[0],
            )
            st.button("Close", key="pseudo_labels_close", on_click=_close, width="stretch")
    if go:
        open_page(VOTES)


def _bold_name(name: str) -> str:
    return f"{cluster_before(name)}**{plain(name)}**"


def upload_field(clusters: ClusterView) -> None:
    """Shows a popover that names the cluster of uploaded pictures."""
    bundle = clusters.bundle
    with st.popover("Upload", icon=":material/upload:", width="content"):
        if not bundle.has_clusterer:
            st.caption(NO_CLUSTERER_FOR_UPLOADS)
            return
        limits = f"Up to {MAX_UPLOADS} pictures; made square and resized."
        files = picture_uploader("pseudo_labels_upload", limits)
        chosen, refused = prepared_uploads(files[:MAX_UPLOADS], bundle.manifest)
        for line in refused:
            st.error(plain(line), icon=":material/broken_image:")
        if len(files) > MAX_UPLOADS:
            st.caption(f"Only the first {MAX_UPLOADS} of {len(files)} files are used.")
        cells = []
        for one, image in chosen.items():
            cluster, sure = cluster_of(bundle, image)
            name, alt = clusters.names[cluster], f"{one}, {clusters.title(cluster)}"
            cells.append(Cell(data_uri(image), alt, cluster_colour(cluster), name, f"{percent(sure)} sure"))
        if cells:
            picture_grid(cells, len(cells), key="pseudo_labels_uploaded", size_px=96)
        st.caption(
            "The cluster that the clusterer puts a picture in. It always names one, for OOD pictures too."
        )


def rename_field(clusters: ClusterView, cluster: int) -> None:
    """Shows a popover in which the chosen cluster gets another name for display."""
    usual, names = usual_names(clusters.bundle), clusters.names

    def give(name: str | None = None) -> None:
        st.session_state[_PROBLEM] = ""
        text = str(st.session_state["pseudo_labels_name"]) if name is None else name
        try:
            check_may_write()
            rename(names_file(), clusters.bundle.hash, cluster, text, usual)
        except (NamesError, GuestError) as error:
            st.session_state[_PROBLEM] = str(error)

    is_off = cluster < 0 or bool(refusal())
    with st.popover("Rename", icon=":material/edit:", width="content", disabled=is_off, help=refusal() or None):
        if is_off:
            return
        if not st.session_state.get(_PROBLEM):
            st.session_state["pseudo_labels_name"] = names[cluster]
        st.text_input(f"What {plain(usual[cluster])} is called here", key="pseudo_labels_name", on_change=give)
        st.button(
            "The bundle's own name",
            key="pseudo_labels_own_name",
            on_click=give,
            args=("",),
            disabled=names[cluster] == usual[cluster],
            icon=":material/undo:",
        )
        if problem := st.session_state.pop(_PROBLEM, ""):
            st.error(plain(problem))
        st.caption("Kept beside the runs for everybody on this machine. The bundle itself is never changed.")
