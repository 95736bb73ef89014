"""The source images of the lab: drawn at random, of a class, picked by hand, or uploaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sdviz import data
from sdviz.bundle import Bundle, Manifest
from sdviz.bundle.generated import GENERATED, has_generated
from sdviz.bundle.labels import learned_labels, source_labels
from sdviz.data import DataError, ImageSet
from sdviz.data.imageset import permutation
from sdviz.data.source import exists, path_in
from sdviz.outliers import OutlierRequest, Recipe
from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cache.bundles import load_to_show, set_to_show
from sdviz.ui.cluster_names import usual_names
from sdviz.ui.components.picture_grid import Cell, picture_grid
from sdviz.ui.links import set_link_value
from sdviz.ui.missing import AWAITED
from sdviz.ui.pictures import FAR_OOD_COLOUR, ID_COLOUR, NEAR_OOD_COLOUR, NEUTRAL_COLOUR, data_uri
from sdviz.ui.text import counted, plain
from sdviz.ui.uploads import (
    NO_CLUSTERER_FOR_UPLOADS,
    KeptUploads,
    kept_uploads,
    picture_uploader,
    prepared_uploads,
)

UPLOAD = "your own upload"
ANY_CLASS = "any class"
MAX_SOURCES = 16
USUAL_COUNT = 6
MAX_DRAW = 9_999
# enough to draw from, and quick to decode
POOL_LIMIT = 4_000
GALLERY_SIZE = 60
NO_REAL_IMAGE = "by this network, from noise: no real image"


@dataclass(frozen=True)
class SourceImage:
    """A source image of the lab."""

    id: str
    image: np.ndarray  # uint8 (H,W,3)
    label: int  # y~, its cluster, never the target label of the outlier
    label_note: str  # how sure the clusterer is, "" if the label is the set's own
    has_mask: bool  # the mask of its object is known
    title: str = ""  # its class or other name, "" if that is its cluster's name
    role: str = "ID"  # "ID" if of the bundle's own set, else in other words
    colour: str = ID_COLOUR  # of its border, by role
    is_generated: bool = False  # made from noise by a network, not of any set

    def request(self, target: int, recipe: Recipe) -> OutlierRequest:
        """Returns the request for its outlier under that label."""
        return OutlierRequest(self.id, self.image, self.label, target, recipe)

    @property
    def row_name(self) -> str:
        """The name of the image's row: "original" or "generated"."""
        return "generated" if self.is_generated else "original"


def choose_sources(bundle: Bundle) -> list[SourceImage]:
    """Draws the widgets that choose images; returns the images, which may be none."""
    columns = st.columns([2.1, 2.0, 1.9, 1.5, 1.5], vertical_alignment="bottom")
    sets = [*_own_files(bundle), *([GENERATED] if has_generated(bundle) else []), *data.names()]
    own = set_to_show(bundle)
    if st.session_state.get(AWAITED) in sets:  # a download is done
        st.session_state["data"] = st.session_state.pop(AWAITED)
    with columns[0]:
        name = st.selectbox(
            "Images from",
            [*sets, UPLOAD],
            index=sets.index(own) if own in sets else 0,
            key="data",
            bind="query-params",
            on_change=_back_to_the_draw,
        )
    if name == UPLOAD:
        return _uploads(bundle)
    try:
        pool = load_to_show(bundle, name, POOL_LIMIT)
    except DataError as error:
        st.error(plain(str(error)))
        return []
    if name == GENERATED:
        pool = replace(pool, class_names=usual_names(bundle))
    wanted, count, draw = _which_images(columns, pool.class_names, picked=bool(_asked(pool)))
    with columns[4]:
        picked = _pick_by_hand(pool, wanted)
    if picked:
        rows = np.array(picked)
    else:
        eligible = _of_class(pool, wanted)
        if not len(eligible):
            st.info(f"{plain(name)} has no image of the class {plain(wanted)} here: choose another class.")
            return []
        rows = eligible[permutation(len(eligible), draw)[:count]]
    return _with_labels(bundle, pool, rows)


def _own_files(bundle: Bundle) -> list[str]:
    """The bundle's own set if it is a folder or file on this machine; else empty."""
    name = bundle.manifest.dataset
    return [name] if name.startswith(data.OWN_KINDS) and exists(path_in(name)) else []


def _which_images(
    columns: list[DeltaGenerator], class_names: tuple[str, ...], picked: bool
) -> tuple[str, int, int]:
    """Draws and returns class, number and draw. With images picked by hand, number and draw are disabled."""
    with columns[1]:
        options = [ANY_CLASS, *class_names]
        wanted = st.selectbox("Class", options, key="class", bind="query-params", disabled=len(options) == 1)
    with columns[2]:
        count = st.slider(
            "How many", 1, MAX_SOURCES, USUAL_COUNT, key="n", bind="query-params", disabled=picked
        )
    with columns[3]:
        draw = st.number_input(
            "Draw",
            0,
            MAX_DRAW,
            0,
            key="draw",
            bind="query-params",
            help="Another number draws other images.",
            disabled=picked,
        )
    return wanted, count, int(draw)


def first_sources(bundle: Bundle) -> list[SourceImage]:
    """Returns the images shown at first. Raises DataError: neither the bundle's set nor a stand-in is here."""
    pool = load_to_show(bundle, set_to_show(bundle), POOL_LIMIT)
    return _with_labels(bundle, pool, permutation(len(pool), 0)[:USUAL_COUNT])


def _of_class(pool: ImageSet, wanted: str) -> np.ndarray:
    if wanted == ANY_CLASS:
        return np.arange(len(pool))
    return np.flatnonzero(pool.labels == pool.class_names.index(wanted))


def _asked(pool: ImageSet) -> list[str]:
    """Returns the ids picked by hand from the address, and drops unknown ids from it."""
    known, asked = set(pool.ids.tolist()), st.query_params.get("pick", "")
    there = [i for i in dict.fromkeys(picked_ids(asked)) if i in known][:MAX_SOURCES]
    if in_link(there) != asked:
        set_link_value("pick", in_link(there))
    return there


def in_link(ids: Sequence[str]) -> str:
    """Returns ids as one value of a link, where "," stands between them."""
    return ",".join(one.replace("%", "%25").replace(",", "%2C") for one in ids)


def picked_ids(value: str) -> list[str]:
    """Returns the ids in a value of `in_link`."""
    return [unquote(one) for one in value.split(",")]


def _back_to_the_draw() -> None:
    set_link_value("pick", "")


def _pick_by_hand(pool: ImageSet, wanted: str) -> list[int]:
    """Draws a gallery in a popover; returns the picked rows of the pool in the order of picking."""
    row_of = {image_id: row for row, image_id in enumerate(pool.ids.tolist())}
    asked = _asked(pool)

    def toggle() -> None:
        clicked = st.session_state["gallery"].clicked
        now = [i for i in picked_ids(st.query_params.get("pick", "")) if i in row_of]
        now = [i for i in now if i != clicked] if clicked in now else [*now, clicked][-MAX_SOURCES:]
        set_link_value("pick", in_link(now))

    label = f"Picked: {len(asked)}" if asked else "Pick"
    with st.popover(label, icon=":material/grid_view:", width="stretch"):
        shown = _of_class(pool, wanted)[:GALLERY_SIZE]
        made = " All of them are generated: the network made them from noise." * (pool.name == GENERATED)
        st.caption(f"Click pictures, up to {MAX_SOURCES}. They stand in for the random draw.{made}")
        cells = [
            Cell(
                data_uri(pool.images[r]),
                f"{'generated: ' if pool.name == GENERATED else ''}{pool.label_name(r)}, {pool.ids[r]}",
                ID_COLOUR if pool.ids[r] in asked else NEUTRAL_COLOUR,
                id=str(pool.ids[r]),
                chosen=bool(pool.ids[r] in asked),
            )
            for r in shown
        ]
        picture_grid(cells, len(cells), key="gallery", size_px=64, on_click=toggle)
        st.button(
            "Back to the random draw", on_click=_back_to_the_draw, disabled=not asked, icon=":material/undo:"
        )
    return [row_of[i] for i in asked]


def _with_labels(bundle: Bundle, pool: ImageSet, rows: np.ndarray) -> list[SourceImage]:
    """Returns sources with labels: the set's own if the bundle was trained on them, else predicted ones."""
    chosen = pool.take(rows)
    generated, own = pool.name == GENERATED, learned_labels(bundle, pool)
    labels, notes = chosen.labels, [""] * len(rows)
    # without a clusterer a generated image keeps the label that it was made under
    is_labelled = generated and not bundle.has_clusterer
    if not is_labelled and (not own or (labels < 0).any()):
        if not bundle.has_clusterer:
            st.error("This bundle has no clusterer, so it can take only images of the set it was trained on.")
            return []
        with DEVICE_LOCK:
            labels, confidence = source_labels(bundle, chosen)
        notes = ["" if np.isnan(c) else f"{c:.0%} sure" for c in confidence]
    masked = data.has_masks(pool.name, bundle.manifest.image_size)
    role, colour = (NO_REAL_IMAGE, NEUTRAL_COLOUR) if generated else _role(pool.name, bundle.manifest)
    before = "generated: " if generated else ""
    titles = ["" if own else before + pool.label_name(int(r)) for r in rows]
    each = zip(chosen.ids.tolist(), chosen.images, labels.tolist(), notes, titles, strict=True)
    return [SourceImage(i, x, y, note, masked, title, role, colour, generated) for i, x, y, note, title in each]


def _role(name: str, manifest: Manifest) -> tuple[str, str]:
    if name == manifest.dataset:
        return "ID", ID_COLOUR
    if name in manifest.config.get("evaluation", {}).get("near", []):
        return "near-OOD", NEAR_OOD_COLOUR
    return "another set", FAR_OOD_COLOUR


def _uploads(bundle: Bundle) -> list[SourceImage]:
    if not bundle.has_clusterer:
        st.error(NO_CLUSTERER_FOR_UPLOADS)
        return []
    kept = kept_uploads(bundle.manifest.image_size)
    files = picture_uploader("uploader", on_change=kept.changed)
    used = files[:MAX_SOURCES]
    chosen, refused = prepared_uploads(used, bundle.manifest)
    kept.take(chosen)
    for line in refused:
        st.error(plain(line), icon=":material/broken_image:")
    pictures = kept.all()
    _say_how_many_are_used(kept, len(files), len(used) - len(refused), len(pictures))
    if not pictures:
        st.info("Drop pictures above. Each is shown as the network sees it before anything is made of it.")
        return []
    ids = list(pictures)[:MAX_SOURCES]
    images = np.stack([pictures[i] for i in ids])
    with DEVICE_LOCK:
        labels, confidence = bundle.pseudo_label(images)
    rows = zip(ids, images, labels.tolist(), confidence.tolist(), strict=True)
    return [
        SourceImage(i, image, y, f"{c:.0%} sure", False, "upload", "your own", NEUTRAL_COLOUR)
        for i, image, y, c in rows
    ]


def _say_how_many_are_used(kept: KeptUploads, n_files: int, n_usable: int, n_pictures: int) -> None:
    if kept.before:
        columns = st.columns([5, 1], vertical_alignment="center")
        columns[0].caption(f"{counted(len(kept.before), 'uploaded picture')} kept from before.")
        columns[1].button(
            "Clear", key="clear_uploads", on_click=kept.clear, icon=":material/delete:", width="stretch"
        )
    again = n_usable + len(kept.before) - n_pictures
    if again:
        st.caption(f"{counted(again, 'file')} of yours, byte for byte the same as another, shown once.")
    if n_files > MAX_SOURCES:
        st.warning(f"Only the first {MAX_SOURCES} of {n_files} files are used.")
    elif n_pictures > MAX_SOURCES:
        st.warning(f"Only {MAX_SOURCES} of {n_pictures} pictures are shown: the new ones first.")
