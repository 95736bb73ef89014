"""The selected points of Embeddings: pictures, counts per set and cluster, export."""

import io
import zipfile
from collections.abc import Mapping
from functools import partial
from html import escape

import numpy as np
import pandas as pd
import streamlit as st

from sdviz.analysis.tables import OUTLIERS, TRAIN
from sdviz.projection import Layouts, inside, project
from sdviz.table_files import csv_text
from sdviz.ui.assets import style
from sdviz.ui.components.picture_grid import Cell, picture_grid
from sdviz.ui.components.scatter import Colouring
from sdviz.ui.embeddings.colours import score_of, texts_of
from sdviz.ui.embeddings.state import PAGE, Known
from sdviz.ui.library import uri_of
from sdviz.ui.missing import say_missing
from sdviz.ui.pictures import png_bytes
from sdviz.ui.text import counted
from sdviz.ui.theme import set_roles
from sdviz.ui.widgets import download

AT_ONCE, PICTURE_PX = 48, 96
MOST_IN_ZIP = 5_000
_IDS, _PAGE = f"{PAGE}_chosen_ids", f"{PAGE}_chosen_page"


def chosen_rows(known: Known) -> np.ndarray:
    """The rows of the selected points, int64, ascending. Another layout keeps the selection."""
    ids = st.session_state.get(_IDS, ())
    return np.flatnonzero(np.isin(known.points.ids, list(ids))) if ids else np.array([], np.int64)


def take_region(
    region: Mapping[str, object] | None, known: Known, layouts: Layouts, layout: str, shown: Colouring
) -> None:
    """Selects the points inside a drawn region; None empties the selection.

    Args:
        region: As `scatter` reports it. A malformed one, or one of another layout, changes nothing.
        layout: The name of these layouts.
        shown: The groups of the points; those in hidden groups are not selected.
    """
    here = np.zeros(len(known.points), bool)
    if region is not None:
        try:
            polygon = np.array(region["polygon"], np.float64).reshape(-1, 2)
            onto = np.array(region["onto"], np.float64)
            frame, hidden = int(region["frame"]), list(region["hidden"])  # type: ignore[call-overload]
            if region["layout"] != layout or onto.shape != (2, layouts.points.shape[2]):
                return
            points = project(layouts.points[frame], onto)
        except (KeyError, TypeError, ValueError, IndexError):
            return
        here = inside(points, polygon) & ~np.isin(shown.group, hidden)
    st.session_state[_IDS] = tuple(known.points.ids[here].tolist())
    st.session_state[_PAGE] = 1


def show_chosen(known: Known, layouts: Layouts, rows: np.ndarray, lines: Mapping[str, str]) -> str | None:
    """Shows the selection, or how to make one; returns the id of a picture clicked just now, if any."""
    st.markdown("##### Selection")
    if not len(rows):
        st.caption(
            "Nothing is selected. Take **Lasso** or **Box** above the points and draw around some: their "
            "pictures, counts per set and cluster, and an export come here."
        )
        return None
    left, right = st.columns([1.75, 1.25], gap="medium")
    with left:
        clicked = _gallery(known, rows)
    with right:
        st.markdown("**Counts per set and cluster**")
        st.html(counts_html(known, rows))
        st.caption("An OOD image has no cluster: it is counted where the detector's g_in puts it.")
        _downloads(known, layouts, rows, lines)
    return clicked


def odd_ones_first(known: Known, rows: np.ndarray) -> np.ndarray:
    """Sorts rows: OOD images, then outliers, held-out ID images, training images."""
    roles = set_roles(known.evidence)
    place = {OUTLIERS: 1, TRAIN: 3} | {name: 2 for name, role in roles.items() if role == "id"}
    return rows[np.argsort([place.get(name, 0) for name in known.points.sets[rows].tolist()], kind="stable")]


def _gallery(known: Known, rows: np.ndarray) -> str | None:
    rows = odd_ones_first(known, rows)
    n_pages = -(-len(rows) // AT_ONCE)
    page = 1
    head = st.columns([2, 1], vertical_alignment="bottom")
    head[0].markdown(f"**{counted(len(rows), 'image')}**")
    if n_pages > 1:
        if not 1 <= st.session_state.get(_PAGE, 1) <= n_pages:
            st.session_state[_PAGE] = 1
        with head[1]:
            page = int(st.number_input(f"Page, 1 to {n_pages}", 1, n_pages, key=_PAGE))
    some = rows[(page - 1) * AT_ONCE : page * AT_ONCE]
    p = known.points
    pictures = known.show_pictures(p.ids[some].tolist())
    texts = texts_of(known)
    cells = []
    for i, row in enumerate(some.tolist()):
        first, *rest = texts[row].split("\n")
        cells.append(
            Cell(
                uri_of(pictures, i),
                texts[row].replace("\n", ", "),
                known.colour_of(str(p.sets[row])),
                first,
                rest[0] if len(rest) > 2 else "",
                id=str(p.ids[row]),
            )
        )
    clicked = picture_grid(cells, len(cells), key=f"{PAGE}_gallery", size_px=PICTURE_PX)
    say_missing(pictures)
    st.caption(
        "OOD images come first. Borders have the colour of the set. Click a picture to open it in Sample votes."
    )
    return clicked


def counts_of(known: Known, rows: np.ndarray) -> pd.DataFrame:
    """Counts the selected points: a row for each cluster, a column for each set, with totals."""
    p = known.points
    clusters = [known.cluster_name(c) or "unknown" for c in p.clusters[rows].tolist()]
    sets = p.sets[rows].tolist()
    table = pd.crosstab(
        pd.Series(clusters, name="cluster"), pd.Series(sets, name="set"), margins=True, margins_name="all"
    )
    order = [one for one in [*known.names, "unknown"] if one in table.index]
    return table.loc[[*dict.fromkeys(order), "all"]]


def counts_html(known: Known, rows: np.ndarray) -> str:
    """The counts as HTML: a row for each set, the total first."""
    table = counts_of(known, rows)
    lines = []
    # the total, then ID, OOD sets and outliers in the order of every page
    for name in ["all", *(one for one in dict.fromkeys(known.points.sets.tolist()) if one in table.columns)]:
        column = table[name]
        colour = "" if name == "all" else known.colour_of(name)
        square = f'<i style="--set:{escape(colour)}"></i>' if colour else ""
        title = "all selected" if name == "all" else known.title_of(name)
        # the largest first; the span keeps a name and its number on one line
        parts = column.drop("all").sort_values(ascending=False, kind="stable")
        of = " ".join(f"<span>{escape(str(c))} <b>{n:,}</b></span>" for c, n in parts.items() if n)
        lines.append(f"<tr><td>{square}{escape(title)}</td><td><b>{column['all']:,}</b></td><td>{of}</td></tr>")
    head = "<tr><th>set</th><th>images</th><th>of which in cluster</th></tr>"
    table = f'<table class="chosencounts"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table>'
    return style(__name__) + table


def _downloads(known: Known, layouts: Layouts, rows: np.ndarray, lines: Mapping[str, str]) -> None:
    columns = st.columns(2)
    name = f"sdviz-selection-{len(rows)}"
    with columns[0]:
        make = partial(points_csv, known, layouts, rows, lines)
        download("CSV", make, f"{name}.csv", key=f"{PAGE}_chosen_csv", width="stretch")
    with columns[1]:
        download(
            "ZIP",
            partial(chosen_zip, known, layouts, rows, lines),
            f"{name}.zip",
            key=f"{PAGE}_chosen_zip",
            icon=":material/folder_zip:",
            disabled=len(rows) > MOST_IN_ZIP,
            help=f"Up to {MOST_IN_ZIP:,} pictures as PNG of their own size, and the CSV.",
            width="stretch",
        )


def points_csv(known: Known, layouts: Layouts, rows: np.ndarray, lines: Mapping[str, str]) -> str:
    """Points as CSV: what is known of each, and its place in every epoch."""
    p, axes = known.points, "xyz"[: layouts.points.shape[2]]
    coordinates = [f"{axis} {name}" for name in p.frames for axis in axes]
    header = ["id", "set", "cluster", "class", "S", "told", "score", "votes", "verdict"]
    header += [*map(score_of, known.imported_scores), *coordinates]
    values: list[list[object]] = []
    for row in rows.tolist():
        votes = known.votes[row]
        values.append(
            [
                str(p.ids[row]),
                str(p.sets[row]),
                known.cluster_name(int(p.clusters[row])),
                str(known.classes[row]),
                int(p.start_timesteps[row]) if p.start_timesteps[row] >= 0 else None,
                known.cluster_name(int(p.target_labels[row])),
                known.scores[row],
                None if np.isnan(votes) else int(votes),
                str(known.verdicts[row]),
                *(scores[row] for scores in known.imported_scores.values()),
                *layouts.points[:, row].ravel().tolist(),
            ]
        )
    return csv_text(header, values, lines)


def chosen_zip(known: Known, layouts: Layouts, rows: np.ndarray, lines: Mapping[str, str]) -> bytes:
    """A ZIP of the CSV and a PNG of each selected image that is here, named by its row in the CSV."""
    stream = io.BytesIO()
    ids = known.points.ids[rows].tolist()
    pictures = known.show_pictures(ids)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("selection.csv", points_csv(known, layouts, rows, lines))
        for i, row in enumerate(rows.tolist()):
            if pictures.found[i]:
                name = "outlier" if known.points.sets[row] == OUTLIERS else str(known.points.sets[row])
                archive.writestr(f"{name}/{i:05d}.png", png_bytes(pictures.images[i]))
    return stream.getvalue()
