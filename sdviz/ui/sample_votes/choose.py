"""The widgets that choose the image of Sample votes: from a set, by its id, or an upload."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence, PictureLibrary
from sdviz.analysis.tables import ID_ROLES
from sdviz.analysis.votes import (
    BORDER,
    OTHER,
    RANDOM,
    WORST,
    Sample,
    find_sample,
    group_ids,
    matching_ids,
    ordered,
    sample_to_begin_with,
    scored_sets,
)
from sdviz.bundle import Manifest
from sdviz.ui.components.picture_grid import Cell, picture_grid
from sdviz.ui.library import BundleView, uri_of
from sdviz.ui.pictures import data_uri
from sdviz.ui.sample_votes.state import PAGE, group_colour, group_titles, is_own, open_sample, source_of
from sdviz.ui.scores import SetsNow
from sdviz.ui.session import chosen_set, opener, sample
from sdviz.ui.text import code_span, plain
from sdviz.ui.uploads import KeptUploads, kept_uploads, picture_uploader, prepared_uploads

STRIP_SIZE, STRIP_PX = 13, 64
GALLERY_SIZE = 60
ORDERS = (WORST, BORDER, RANDOM)
_MAX_ID_SHOWN = 60


@dataclass(frozen=True, eq=False)
class _Choice(BundleView):
    """The images to choose from, and the one that is chosen."""

    now: SetsNow  # the scores by which images are ordered
    pictures: Mapping[str, np.ndarray]  # uploads, uint8 (H,W,3) by id
    chosen: Sample

    @property
    def foreign(self) -> str:
        """The set of a chosen image that is neither the bundle's nor an upload, as "cifar100/test"; else ""."""
        is_foreign = self.chosen.group == OTHER and not is_own(self.chosen.id)
        return source_of(self.chosen.id) if is_foreign else ""

    def in_order(self, group: str, order: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a group in this order, and their scores; banks and uploads have no scores."""
        if group == OTHER:
            foreign = [self.chosen.id] if self.foreign else []
            return np.array([*foreign, *self.pictures], dtype=str), np.empty(0)
        ids, scores = group_ids(self.evidence)[group], self.now.to_order_by.get(group)
        if scores is None:
            return ids[ordered(np.zeros(len(ids)), 0.0, True, RANDOM)], np.empty(0)
        # the median stands in for an unknown threshold
        border = float(np.median(scores.total)) if self.now.threshold is None else self.now.threshold
        is_id = scored_sets(self.evidence)[group].role in ID_ROLES
        rows = ordered(scores.total, border, is_id, order)
        return ids[rows], scores.total[rows]

    def show_thumbnails(self, ids: np.ndarray, totals: np.ndarray, key: str) -> None:
        """Pictures with their scores; a click opens one."""
        names = [one for one in ids.tolist() if one not in self.pictures]
        shown = self.show_pictures(names)
        sources = {one: uri_of(shown, row) for row, one in enumerate(names)}
        sources |= {one: data_uri(image) for one, image in self.pictures.items()}
        colour = group_colour(self.evidence, self.chosen.group)
        texts = [f"{total:.3f}" for total in totals] or [""] * len(ids)
        cells = [
            Cell(sources[one], one, colour, text, id=one, chosen=one == self.chosen.id)
            for one, text in zip(ids.tolist(), texts, strict=True)
        ]
        picture_grid(cells, len(cells), key=key, size_px=STRIP_PX, on_click=opener(key))

    def place(self, at: int, n: int, order: str, has_scores: bool) -> str:
        """Where the chosen image stands in its group, as a sentence."""
        if self.foreign:
            after = " After it your own pictures. Click one to open it." if n > 1 else ""
            return f"An image of {plain(self.foreign)}, which is none of this bundle's sets.{after}"
        if self.chosen.group == OTHER:
            return "Pictures of your own. Click one to open it."
        title = group_titles(self.evidence).get(self.chosen.group, self.chosen.group)
        score = ", with its score under each" if has_scores else ""
        return f"Image {at + 1:,} of {n:,} of {title}, {order}{score}. Click one to open it."


def choose_sample(
    evidence: Evidence, library: PictureLibrary, now: SetsNow
) -> tuple[Sample | None, Mapping[str, np.ndarray]]:
    """Draws the widgets that choose an image; returns the image, if any, and the uploads by id."""
    manifest = evidence.bundle.manifest
    uploads = kept_uploads(manifest.image_size)
    pictures = uploads.all()
    chosen, note, is_another = _resolve(evidence, library, pictures, now)
    if chosen is None:
        _upload(uploads, manifest)
        return None, uploads.all()
    choice = _Choice(evidence, library, now, pictures, chosen)
    titles = group_titles(evidence)
    options = [*group_ids(evidence), *([OTHER] if pictures or chosen.group == OTHER else [])]
    is_scored = chosen.group in scored_sets(evidence)

    def to_group() -> None:
        group = st.session_state[f"{PAGE}_group"]
        first, _ = choice.in_order(group, st.session_state.get(f"{PAGE}_order", WORST))
        open_sample(str(first[0]), group if group in scored_sets(evidence) else "")

    def title_of(group: str) -> str:
        return choice.foreign if group == OTHER and choice.foreign else titles.get(group, group)

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.session_state[f"{PAGE}_group"] = chosen.group
        st.selectbox(
            "Images from", options, key=f"{PAGE}_group", format_func=title_of, on_change=to_group, width=235
        )
        order = st.selectbox(
            "Order",
            ORDERS,
            key=f"{PAGE}_order",
            bind="query-params",
            disabled=not is_scored,
            help="Worst first: ID images with the highest scores, OOD images with the lowest. "
            "The banks are shown in a random order that stays the same.",
            width=225,
        )
        ids, totals = choice.in_order(chosen.group, order)
        at = int(np.flatnonzero(ids == chosen.id)[0]) if chosen.id in ids else 0
        _ask_for_id(chosen)
        _gallery(choice, ids, totals, at)
        _upload(uploads, manifest)
        for name, icon, step in (("Previous", "chevron_left", -1), ("Next", "chevron_right", 1)):
            there = 0 <= at + step < len(ids)
            st.button(
                f":material/{icon}:",
                key=f"{PAGE}_{name.lower()}",
                help=f"{name} image in this order",
                disabled=not there,
                on_click=open_sample,
                args=(str(ids[at + step]) if there else "", chosen.group if is_scored else None),
            )
    if is_another:
        st.warning(
            f"{note} **What follows is another image**, {code_span(chosen.id)}.",
            icon=":material/image_not_supported:",
        )
    elif note:
        st.caption(note)
    first = max(0, min(at - STRIP_SIZE // 2, len(ids) - STRIP_SIZE))
    strip = slice(first, first + STRIP_SIZE)
    choice.show_thumbnails(ids[strip], totals[strip], f"{PAGE}_strip")
    st.caption(choice.place(at, len(ids), order if is_scored else RANDOM, bool(len(totals))))
    return chosen, uploads.all()


def _resolve(
    evidence: Evidence, library: PictureLibrary, pictures: Mapping[str, np.ndarray], now: SetsNow
) -> tuple[Sample | None, str, bool]:
    """Finds the image to show.

    Returns:
        The image in the address, else an example; a line about it; whether it is not the one asked for.
    """
    asked = sample().strip()
    shown = code_span(asked, _MAX_ID_SHOWN)
    totals = {name: one.total for name, one in now.to_order_by.items()}
    if not asked:
        one, what = sample_to_begin_with(evidence, totals, now.threshold)
        return one, f"No image chosen yet: this is {what}. Pick any other." if one else "", False
    if asked in pictures:
        return Sample(asked, OTHER, "", -1), "", False
    found = find_sample(evidence, asked, chosen_set(evidence))
    if found is not None:
        return found, "", False
    names, n = matching_ids(evidence, asked)
    if n == 1:
        return find_sample(evidence, names[0]), f"{shown} is part of one id only, this one's.", False
    if n > 1:
        such = ", ".join(f"`{one}`" for one in names)
        note = f"{n:,} ids contain {shown}, such as {such}. Say which."
    elif is_own(asked):
        note = f"{shown} was an upload in another browser session. Upload it again to see it."
    elif library.show([asked]).found[0]:
        return Sample(asked, OTHER, "", -1), "None of the bundle's own: its features are computed here.", False
    else:
        note = f"{shown} is no image of this bundle, nor of a set on this machine."
    return sample_to_begin_with(evidence, totals, now.threshold)[0], note, True


def _ask_for_id(chosen: Sample) -> None:
    st.session_state[f"{PAGE}_id"] = chosen.id

    def asked() -> None:
        text = st.session_state[f"{PAGE}_id"].strip()
        if text:
            open_sample(text)

    st.text_input(
        "Image id",
        key=f"{PAGE}_id",
        on_change=asked,
        help="Any id of the bundle, or of a set on this machine. A part is enough if only one id has it.",
        width=255,
    )


def _gallery(choice: _Choice, ids: np.ndarray, totals: np.ndarray, at: int) -> None:
    box = st.popover("Gallery", icon=":material/grid_view:", key=f"{PAGE}_gallery_box", on_change="rerun")
    if not box.open:
        return
    with box:
        n_pages = -(-len(ids) // GALLERY_SIZE)
        page = 1
        if n_pages > 1:
            key = f"{PAGE}_gallery_page"
            if not 1 <= st.session_state.get(key, 0) <= n_pages:
                st.session_state[key] = at // GALLERY_SIZE + 1
            page = st.number_input(f"Page, 1 to {n_pages}", 1, n_pages, key=key)
        rows = slice((page - 1) * GALLERY_SIZE, page * GALLERY_SIZE)
        choice.show_thumbnails(ids[rows], totals[rows], f"{PAGE}_gallery")


def _upload(uploads: KeptUploads, manifest: Manifest) -> None:
    key = f"{PAGE}_uploader"

    def prepare() -> tuple[dict[str, np.ndarray], list[str]]:
        return prepared_uploads(st.session_state.get(key) or [], manifest)

    def changed() -> None:
        uploads.changed()
        now, _ = prepare()
        new = [one for one in now if one not in uploads.all()]
        uploads.take(now)
        if new:
            open_sample(new[-1])

    with st.popover("Upload", icon=":material/upload:"):
        picture_uploader(key, on_change=changed)
        now, refused = prepare()
        uploads.take(now)
        for line in refused:
            st.error(plain(line), icon=":material/broken_image:")
