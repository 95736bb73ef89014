"""Making an outlier of the image on show, and watching its score move along S."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import streamlit as st

from sdviz.analysis import MissingPart
from sdviz.analysis.provenance import provenance
from sdviz.analysis.votes import OUTLIERS, TRAIN
from sdviz.data.decode import through_jpeg
from sdviz.outliers import Recipe, draw_target_labels
from sdviz.ui.cache import Edit, make_edits
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Line, Mark
from sdviz.ui.components import Cell, Words, picture_grid
from sdviz.ui.outliers import s_values
from sdviz.ui.pictures import CONTROL_COLOUR, OUTLIER_COLOUR, data_uri
from sdviz.ui.sample_votes.state import PAGE, Looked, cluster_of, detector_says, group_colour, neighbours
from sdviz.ui.text import counted, plain

N_VALUES = 9
RANDOM_OTHER = "random other"
PICTURE_PX = 96


def show_outlier(look: Looked, limit: float | None) -> None:
    """A switch, and behind it the outlier of this image and its score along S."""
    st.divider()
    st.markdown("##### Make it an outlier")
    if not look.has_picture:
        st.caption("That needs its picture, which is not on this machine.")
        return
    if look.parts is None or look.banks is None:
        st.caption("That needs a score, which it has none of.")
        return
    st.caption(
        "Noises this image to step S, denoises it under a wrong label, and scores what comes out: see where "
        f"along S it stops to pass as ID. S and w begin as in the outlier lab{_as_in_the_bank(look)}."
    )
    if not st.toggle("Make it an outlier here", key=f"{PAGE}_make", bind="query-params"):
        return
    _made(look, limit)


def _as_in_the_bank(look: Looked) -> str:
    """What the outliers that vote were made with, "" where that is unknown."""
    try:
        outliers = look.evidence.outliers
        recipe = outliers.recipe(0) if len(outliers.ids) else None
    except MissingPart:
        recipe = None
    if recipe is None:
        return ""
    return f"; the outliers that vote were made with S = {recipe.start_timestep}, w = {recipe.guidance_scale:g}"


def _made(look: Looked, limit: float | None) -> None:
    bundle = look.bundle
    d, max_s = bundle.manifest.defaults, bundle.manifest.max_train_timestep
    label, label_note = _label(look)
    columns = st.columns([2.4, 2.2, 1.8], vertical_alignment="top")
    with columns[0]:
        s = st.slider(
            "S, noising steps",
            0,
            max_s,
            d.start_timestep,
            5,
            key=f"{PAGE}_S",
            help="How far the image is noised before it is denoised again. More steps leave less of it.",
        )
        st.caption(f"σ = {bundle.schedule.sigma(s):.2f} (noise over signal)")
    with columns[1]:
        w = st.slider(
            "w, guidance",
            -1.0,
            8.0,
            float(d.guidance_scale),
            0.25,
            key=f"{PAGE}_w",
            help="Eq. 3: (1+w) ε(x, wrong label) - w ε(x, no label).",
        )
    others = [name for c, name in enumerate(look.names) if c != label]
    with columns[2]:
        told = st.selectbox("Told to be", [RANDOM_OTHER, *others], key=f"{PAGE}_told")
        st.caption(f"It is taken for {plain(look.names[label])}{label_note}.")
    if told in others:
        target = look.names.index(told)
    else:
        target = int(draw_target_labels(np.array([label]), np.array([look.sample.id]), bundle.n_clusters, 0)[0])
    values = sorted({*s_values(max_s, N_VALUES), s})
    recipes = [bundle.recipe(v, w) for v in values]
    wrong, right = _pictures(look, label, target, recipes)
    totals = [_totals(look, made) for made in (wrong, right)]
    _show_strip(look, values, s, wrong, totals[0], target, limit)
    _show_curve(look, values, s, w, label, target, totals, limit)


def _label(look: Looked) -> tuple[int, str]:
    """The cluster that the image is taken for, and how sure that is or who says so."""
    assert look.banks is not None
    if look.sample.group == TRAIN:
        return int(look.banks.id_labels[look.sample.row]), ""
    if look.sample.group == OUTLIERS:
        return int(look.banks.outlier_labels[look.sample.row]), ""
    if look.bundle.clusterer is not None:
        label, confidence = cluster_of(look.bundle, look.picture)
        return label, f", {confidence:.0%} sure"
    return int(np.argmax(look.heads["g_in"])), " by the head g_in: this bundle has no clusterer"


def _pictures(look: Looked, label: int, target: int, recipes: list[Recipe]) -> tuple[np.ndarray, np.ndarray]:
    """What comes of the image under the wrong and under the right label, uint8 (n,H,W,3) each."""
    place = st.container(height=46, border=False).empty()
    started = time.perf_counter()

    def on_progress(done: float) -> None:
        spent = time.perf_counter() - started
        place.progress(done, f"Denoising along S: {done:.0%}, about {spent / done - spent:.0f} s left")

    edit = Edit(look.sample.id, look.picture, label, target, recipes[0])
    wrong = [replace(edit, recipe=recipe) for recipe in recipes]
    made = make_edits(look.bundle, [*wrong, *(replace(one, target=label) for one in wrong)], on_progress)
    place.caption(
        f"w = {recipes[0].guidance_scale:g}, {counted(recipes[0].num_inference_steps, 'step')} at each S, "
        "the same noise under both labels."
    )
    pictures = np.stack([one.outlier for one in made])
    jpeg = ((look.bundle.manifest.config or {}).get("outliers") or {}).get("jpeg")
    if jpeg:
        # as the bank was: at S = 0 the image is left as it is
        edited = np.array([recipe.start_timestep > 0 for recipe in recipes] * 2)
        pictures[edited] = through_jpeg(pictures[edited], jpeg["quality"], jpeg["subsampling"])
    return pictures[: len(recipes)], pictures[len(recipes) :]


def _totals(look: Looked, pictures: np.ndarray) -> np.ndarray:
    """Eq. 6 of pictures made of the image, float64 (n,)."""
    features, _ = detector_says(look.bundle, pictures)
    own = ""
    try:
        rows = np.flatnonzero(look.evidence.outliers.source_ids == look.sample.id)
        own = str(look.evidence.outliers.ids[rows[0]]) if len(rows) else ""
    except MissingPart:
        pass
    near = neighbours(look.evidence, look.settings, features, look.sample.id, own)
    return near.scores(look.settings.k, look.settings.alpha).total


def _chose_s() -> None:
    st.session_state[f"{PAGE}_S"] = int(st.session_state[f"{PAGE}_along"].clicked)


def _show_strip(
    look: Looked,
    values: list[int],
    s: int,
    pictures: np.ndarray,
    totals: np.ndarray,
    target: int,
    limit: float | None,
) -> None:
    cells = []
    for v, picture, total in zip(values, pictures, totals, strict=True):
        words = "" if limit is None else ("called OOD" if total > limit else "passes as ID")
        colour = OUTLIER_COLOUR if v else group_colour(look.evidence, look.sample.group)
        cells.append(
            Cell(data_uri(picture), f"S = {v}", colour, f"{total:.3f}", words, id=str(v), chosen=v == s)
        )
    picture_grid(
        cells,
        len(cells),
        key=f"{PAGE}_along",
        size_px=PICTURE_PX,
        column_names=[
            Words(f"S {v}", f"σ {look.bundle.schedule.sigma(v):.2f}" if v else "as it is") for v in values
        ],
        shrink=True,
        on_click=_chose_s,
    )
    st.caption(
        f"The image along S, told {plain(look.names[target])}, with its score at each. "
        "Click one to set S there."
    )


def _show_curve(
    look: Looked,
    values: list[int],
    s: int,
    w: float,
    label: int,
    target: int,
    totals: list[np.ndarray],
    limit: float | None,
) -> None:
    x = np.array(values)
    marks = [Mark(s, f"S = {s}")]
    if limit is not None:
        marks.append(Mark(limit, f"threshold {limit:.3f}", upright=False))
    chart = Chart(
        f"Score along S of {look.sample.id}",
        "S, noising steps",
        "score (Eq. 6), higher is more OOD",
        [
            Line(f"told {look.names[target]} (wrong)", x, totals[0], OUTLIER_COLOUR, markers=True),
            Line(f"told {look.names[label]} (control)", x, totals[1], CONTROL_COLOUR, dash=True, markers=True),
        ],
        marks,
        height=340,
    )
    settings = look.settings
    show_chart(
        chart,
        provenance(
            look.bundle, image=look.sample.id, told=look.names[target], w=w, k=settings.k, alpha=settings.alpha
        ),
        key=f"{PAGE}_curve",
        caption="The score of what comes out at each S. The control is the same noise under the label that the "
        "image is taken for: what only it moves is not the wrong label's doing. The image itself and the "
        "bank's outlier of it do not count as neighbours.",
    )
