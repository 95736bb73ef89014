"""Makes outliers of the image on show and plots their score along S."""

from dataclasses import replace

import numpy as np
import streamlit as st

from sdviz.analysis.provenance import provenance
from sdviz.analysis.same_images import through_own_jpeg
from sdviz.analysis.tables import OUTLIERS, TRAIN, or_none
from sdviz.outliers import OutlierRequest, Recipe, draw_target_labels
from sdviz.ui.cache.outliers import make_outliers
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Line, Mark
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.outliers import cluster_of, s_slider, s_values, w_slider
from sdviz.ui.pictures import CONTROL_COLOUR, OUTLIER_COLOUR, data_uri
from sdviz.ui.sample_votes.state import PAGE, SampleView, detector_says, group_colour, neighbours
from sdviz.ui.text import counted, plain
from sdviz.ui.widgets import time_left

N_VALUES = 9
RANDOM_OTHER = "random other"
PICTURE_PX = 96


def show_outlier(view: SampleView, limit: float | None) -> None:
    """Shows a switch; when it is on, the outliers of this image and their scores along S."""
    st.divider()
    st.markdown("##### Make it an outlier")
    if not view.has_picture:
        st.caption("That needs its picture, which is not on this machine.")
        return
    if view.parts is None or view.banks is None:
        st.caption("That needs a score, and it has none.")
        return
    st.caption(
        "Noises this image to step S, denoises it under a wrong label, and scores what comes out: see where "
        f"along S it stops passing as ID. S and w begin as in the outlier lab{_as_in_the_bank(view)}."
    )
    if st.toggle("Make it an outlier here", key=f"{PAGE}_make", bind="query-params"):
        _show_along_s(view, limit)


def _as_in_the_bank(view: SampleView) -> str:
    """A clause with the S and w of the outliers in the bank; "" where unknown."""
    outliers = or_none(lambda: view.evidence.outliers)
    if outliers is None or not len(outliers.ids):
        return ""
    recipe = outliers.recipe(0)
    return f"; the outliers that vote were made with S = {recipe.start_timestep}, w = {recipe.guidance_scale:g}"


def _show_along_s(view: SampleView, limit: float | None) -> None:
    bundle = view.bundle
    label, label_note = _label(view)
    columns = st.columns([2.4, 2.2, 1.8], vertical_alignment="top")
    with columns[0]:
        s = s_slider(bundle, f"{PAGE}_S")
        st.caption(f"σ = {bundle.schedule.sigma(s):.2f} (noise over signal)")
    with columns[1]:
        w = w_slider(bundle, f"{PAGE}_w")
    others = [name for c, name in enumerate(view.names) if c != label]
    with columns[2]:
        chosen = st.selectbox("Told to be", [RANDOM_OTHER, *others], key=f"{PAGE}_told")
        st.caption(f"It is taken for {plain(view.names[label])}{label_note}.")
    if chosen in others:
        target = view.names.index(chosen)
    else:
        target = int(draw_target_labels(np.array([label]), np.array([view.sample.id]), bundle.n_clusters, 0)[0])
    values = sorted({*s_values(bundle.manifest.max_train_timestep, N_VALUES), s})
    recipes = [bundle.recipe(v, w) for v in values]
    wrong, right = _pictures(view, label, target, recipes)
    totals = [_totals(view, made) for made in (wrong, right)]
    _show_strip(view, values, s, wrong, totals[0], target, limit)
    _show_curve(view, values, s, w, label, target, totals, limit)


def _label(view: SampleView) -> tuple[int, str]:
    """The image's cluster, and a note on its confidence or its source."""
    assert view.banks is not None
    if view.sample.group == TRAIN:
        return int(view.banks.id_labels[view.sample.row]), ""
    if view.sample.group == OUTLIERS:
        return int(view.banks.outlier_labels[view.sample.row]), ""
    if view.bundle.clusterer is not None:
        label, confidence = cluster_of(view.bundle, view.picture)
        return label, f", {confidence:.0%} sure"
    return int(np.argmax(view.heads["g_in"])), " by the head g_in: this bundle has no clusterer"


def _pictures(
    view: SampleView, label: int, target: int, recipes: list[Recipe]
) -> tuple[np.ndarray, np.ndarray]:
    """The image denoised under the wrong and under the right label, uint8 (n,H,W,3) each."""
    place = st.container(height=46, border=False).empty()
    on_progress = time_left(place, "Denoising along S")
    request = OutlierRequest(view.sample.id, view.picture, label, target, recipes[0])
    wrong = [replace(request, recipe=recipe) for recipe in recipes]
    right = [replace(one, target_label=label) for one in wrong]
    made = make_outliers(view.bundle, wrong + right, on_progress)
    place.caption(
        f"w = {recipes[0].guidance_scale:g}, {counted(recipes[0].num_inference_steps, 'step')} at each S, "
        "the same noise under both labels."
    )
    pictures = np.stack([one.image for one in made])
    # at S = 0 the image is the original
    is_noised = np.array([recipe.start_timestep > 0 for recipe in recipes] * 2)
    pictures[is_noised] = through_own_jpeg(view.bundle, pictures[is_noised])
    return pictures[: len(recipes)], pictures[len(recipes) :]


def _totals(view: SampleView, pictures: np.ndarray) -> np.ndarray:
    """The scores (Eq. 6) of pictures made of the image, float64 (n,)."""
    features, _ = detector_says(view.bundle, pictures)
    table = or_none(lambda: view.evidence.outliers)
    own = "" if table is None else next(iter(table.ids[table.source_ids == view.sample.id].tolist()), "")
    near = neighbours(view.evidence, view.settings, features, view.sample.id, own)
    return near.scores(view.settings.k, view.settings.alpha).total


def _show_strip(
    view: SampleView,
    values: list[int],
    s: int,
    pictures: np.ndarray,
    totals: np.ndarray,
    target: int,
    limit: float | None,
) -> None:
    cells = []
    for v, picture, total in zip(values, pictures, totals, strict=True):
        verdict = "" if limit is None else ("called OOD" if total > limit else "passes as ID")
        colour = OUTLIER_COLOUR if v else group_colour(view.evidence, view.sample.group)
        cells.append(
            Cell(data_uri(picture), f"S = {v}", colour, f"{total:.3f}", verdict, id=str(v), chosen=v == s)
        )
    picture_grid(
        cells,
        len(cells),
        key=f"{PAGE}_along",
        size_px=PICTURE_PX,
        column_names=[
            Label(f"S {v}", f"σ {view.bundle.schedule.sigma(v):.2f}" if v else "as it is") for v in values
        ],
        shrink=True,
        on_click=lambda: st.session_state.update({f"{PAGE}_S": int(st.session_state[f"{PAGE}_along"].clicked)}),
    )
    st.caption(
        f"The image along S, told {plain(view.names[target])}, with its score at each. "
        "Click one to set S there."
    )


def _show_curve(
    view: SampleView,
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
        f"Score along S of {view.sample.id}",
        "S, noising steps",
        "score (Eq. 6), higher is more OOD",
        [
            Line(f"told {view.names[target]} (wrong)", x, totals[0], OUTLIER_COLOUR, markers=True),
            Line(f"told {view.names[label]} (control)", x, totals[1], CONTROL_COLOUR, dash=True, markers=True),
        ],
        marks,
        height=340,
    )
    settings = view.settings
    show_chart(
        chart,
        provenance(
            view.bundle, image=view.sample.id, told=view.names[target], w=w, k=settings.k, alpha=settings.alpha
        ),
        key=f"{PAGE}_curve",
        caption="The score of the outlier at each S. The control is the same noise under the label that the "
        "image is taken for: where its score rises too, the wrong label is not the reason. The image and the "
        "bank's outlier of it do not count as neighbours.",
    )
