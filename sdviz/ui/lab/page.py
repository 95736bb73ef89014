"""The page Outlier lab: the grid of outliers and controls, and the numbers under it."""

from dataclasses import replace

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sdviz.bundle import Bundle
from sdviz.nn.device import device_name
from sdviz.outliers import Outlier, OutlierRequest, Recipe, draw_target_labels
from sdviz.ui.cache.outliers import make_next
from sdviz.ui.cluster_names import usual_names
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.lab.controls import show_controls, shown_by_link_name, what_a_link_takes
from sdviz.ui.lab.sources import SourceImage, choose_sources, first_sources
from sdviz.ui.lab.state import ALL_OTHERS, SOLVERS, LabState, Run, Settings, guidance_text, mean_psnr, runner
from sdviz.ui.lab.views import scrub_frames, show_view
from sdviz.ui.links import asked_by_link, keep_link_values, refused, restore_link_values, set_link_value
from sdviz.ui.outliers import S_STEP, W_MAX, W_MIN, W_STEP, clusters_of
from sdviz.ui.pictures import CONTROL_COLOUR, NEUTRAL_COLOUR, OUTLIER_COLOUR, data_uri, difference, heat_map
from sdviz.ui.text import counted

PICTURE_PX = 128
# values in the address that belong to no widget
NO_WIDGETS = ("pick", "focus")
_SHIFT_HELP = {
    "shift, outlier": "Outliers that the bundle's own clusterer no longer calls what the original was.",
    "shift, control": "The same count under the right label: what noising alone does. Near 0 is good.",
}
_PSNR_HELP = (
    "PSNR outside the object's mask widened by 2 px, mean over the images shown. Higher is closer to the "
    "original; 25 dB is an error of 14 grey levels."
)


def show_lab(bundle: Bundle, entered: bool) -> None:
    """Draws the page below its title."""
    allowed = what_a_link_takes(bundle)
    asked = {}
    if entered:
        asked = asked_by_link(allowed)
        restore_link_values(NO_WIDGETS)
    place = st.empty()
    _lab(bundle, choose_sources(bundle))
    link_names = {shown_by_link_name(bundle).get(one, one): one for one in asked.get("target", [])}
    if line := refused(asked, allowed, {"solver": SOLVERS, "target": link_names}):
        place.caption(line)


@st.fragment
def _lab(bundle: Bundle, sources: list[SourceImage]) -> None:
    keep_link_values(NO_WIDGETS)
    # controls are drawn even without images, or their values would be lost
    settings = show_controls(bundle)
    if not sources:
        return
    status = st.container(height=46, border=False).empty()
    grid_place = st.container()
    focus = _focus(len(sources))
    run = runner(bundle, status)

    labels = np.array([s.label for s in sources])
    ids = np.array([s.id for s in sources])
    names = usual_names(bundle)
    if settings.target in names:
        targets = np.full(len(sources), names.index(settings.target))
    else:
        targets = draw_target_labels(labels, ids, bundle.n_clusters, settings.recipe.seed)

    with grid_place:
        n, c = len(sources), bundle.n_clusters
        if settings.target == ALL_OTHERS:
            made = _show_all_targets(bundle, sources, settings, run, focus)
            pick = [made[i * c + int(t)] for i, t in enumerate(targets)]
            right = [made[i * c + int(y)] for i, y in enumerate(labels)]
            wrong = [(i, made[i * c + t]) for i in range(n) for t in range(c) if t != labels[i]]
        else:
            made = run(_pairs(sources, targets, settings.recipe), "Denoising")
            pick, right = made[:n], made[n:]
            wrong = list(enumerate(pick))
        state = LabState(bundle, names, sources, settings, targets, pick, right, focus)
        if settings.target != ALL_OTHERS:
            _show_pairs(state)
        state = replace(state, same=_show_numbers(state, wrong))
    _status_line(status, bundle, settings, made)
    show_view(state)
    if settings.target != ALL_OTHERS:
        make_next(bundle, [_pairs(sources, targets, r) for r in _next_recipes(bundle, settings.recipe)])


def _pairs(sources: list[SourceImage], targets: np.ndarray, recipe: Recipe) -> list[OutlierRequest]:
    """Returns requests for the outlier of each source, then for the control of each."""
    wrong = [s.request(int(t), recipe) for s, t in zip(sources, targets, strict=True)]
    return wrong + [replace(one, target_label=one.label) for one in wrong]


def _next_recipes(bundle: Bundle, now: Recipe) -> list[Recipe]:
    s, w = now.start_timestep, now.guidance_scale
    near = [replace(now, start_timestep=s + step) for step in (S_STEP, -S_STEP)]
    near += [replace(now, guidance_scale=w + step) for step in (W_STEP, -W_STEP)]
    max_s = bundle.manifest.max_train_timestep
    return [one for one in near if 0 <= one.start_timestep <= max_s and W_MIN <= one.guidance_scale <= W_MAX]


def first_view(bundle: Bundle) -> list[OutlierRequest]:
    """Returns the requests of the page when first opened. Raises DataError: the bundle's set is not here."""
    sources, recipe = first_sources(bundle), bundle.recipe()
    if not sources:
        return []
    labels, ids = np.array([s.label for s in sources]), np.array([s.id for s in sources])
    targets = draw_target_labels(labels, ids, bundle.n_clusters, recipe.seed)
    pairs = _pairs(sources, targets, recipe)
    return pairs + scrub_frames(bundle, pairs[0])[1]


def _status_line(status: DeltaGenerator, bundle: Bundle, settings: Settings, made: list[Outlier]) -> None:
    r = settings.recipe
    sigma, ms = bundle.schedule.sigma(r.start_timestep), 1000 * sum(m.elapsed_sec for m in made)
    status.caption(
        f"S = {r.start_timestep} (σ {sigma:.2f}), w = {r.guidance_scale:g}{guidance_text(r)}, "
        f"{SOLVERS[r.solver]}, {counted(made[0].network_calls, 'network call')}, "
        f"{counted(made[0].evaluations, 'evaluation')} a picture, {ms:.0f} ms for {len(made)} pictures, "
        f"{device_name(bundle.device)}, {bundle.inference.description}"
    )


def _show_pairs(state: LabState) -> None:
    """Shows original, outlier, control, noised image and difference, a column for each image."""
    bundle, sources, r, names = state.bundle, state.sources, state.settings.recipe, state.names
    sigma = bundle.schedule.sigma(r.start_timestep)
    facts = f"S {r.start_timestep}, σ {sigma:.2f}, w {r.guidance_scale:g}{guidance_text(r)}"
    solver, device = SOLVERS[r.solver].split(",")[0], bundle.device.type.upper()
    # at w = -1 the label does not count
    unlabelled = r.guidance_scale == -1
    columns: list[tuple[Cell, ...]] = []
    for i, (source, out, control) in enumerate(zip(sources, state.outliers, state.controls, strict=True)):
        source_name, place = names[source.label], str(i)
        wrong, right = ("nothing", "nothing") if unlabelled else (names[int(state.targets[i])], source_name)
        ms = 1000 * out.elapsed_sec
        how = f"{solver}, {counted(out.network_calls, 'call')}, {ms:.0f} ms, {device}"
        heat = heat_map(difference(source.image, out.image))
        texts = (
            f"{source.row_name}: {source_name}, {source.id}",
            f"outlier: {source_name}, told {wrong}",
            f"control: {source_name}, told {right}",
            f"noised to S={r.start_timestep}",
            f"difference of {source.row_name} and outlier",
        )
        columns.append(
            (
                Cell(data_uri(source.image), texts[0], source.colour, id=place, chosen=i == state.focus),
                Cell(
                    data_uri(out.image), texts[1], OUTLIER_COLOUR, f"told {wrong}", "", place, i == state.focus
                ),
                Cell(data_uri(control.image), texts[2], CONTROL_COLOUR, f"told {right}", id=place),
                Cell(data_uri(out.noised), texts[3], NEUTRAL_COLOUR),
                Cell(data_uri(heat), texts[4], NEUTRAL_COLOUR, facts, how),
            )
        )
    rows = [
        Label(sources[0].row_name, sources[0].role),
        Label("outlier", "no label" if unlabelled else "wrong label"),
        Label("control", "no label" if unlabelled else _right_label(sources)),
        Label("noised", f"x_S at S={r.start_timestep}"),
        Label("difference", f"{sources[0].row_name} to outlier; yellow is half the range"),
    ]
    _grid("grid", [cell for row in zip(*columns, strict=True) for cell in row], rows, bundle, sources)


def _grid(key: str, cells: list[Cell], rows: list[Label], bundle: Bundle, sources: list[SourceImage]) -> None:
    """Draws a column for each source. A click chooses the source of the views below."""

    def choose() -> None:
        set_link_value("focus", str(int(st.session_state[key].clicked) + 1))

    heads = [
        Label(s.title, ", ".join(filter(None, (f"taken for {usual_names(bundle)[s.label]}", s.label_note))))
        if s.title
        else Label(usual_names(bundle)[s.label], s.label_note or s.id.rsplit("/", 1)[-1][:14])
        for s in sources
    ]
    picture_grid(
        cells, len(sources), key=key, size_px=PICTURE_PX, row_names=rows, column_names=heads, on_click=choose
    )


def _right_label(sources: list[SourceImage]) -> str:
    return "clusterer's label" if sources[0].label_note else "right label"


def _focus(count: int) -> int:
    """Returns the index of the image for the views below. The address counts from 1."""
    asked = st.query_params.get("focus", "")
    if asked.isdecimal() and 1 <= int(asked) <= count:
        return int(asked) - 1
    if asked:
        set_link_value("focus", "")
    return 0


def _show_all_targets(
    bundle: Bundle, sources: list[SourceImage], settings: Settings, run: Run, focus: int
) -> list[Outlier]:
    """Shows every image under every label, the right one as control; returns the results by source."""
    names = usual_names(bundle)
    requests = [s.request(target, settings.recipe) for s in sources for target in range(len(names))]
    made = run(requests, "Denoising under every label")
    rows = [Label(sources[0].row_name, sources[0].role), *(Label(f"told {n}") for n in names)]
    cells = [
        Cell(data_uri(s.image), f"{s.row_name}: {names[s.label]}", s.colour, id=str(i), chosen=i == focus)
        for i, s in enumerate(sources)
    ]
    for target, name in enumerate(names):
        for i, source in enumerate(sources):
            own = target == source.label
            cells.append(
                Cell(
                    data_uri(made[i * len(names) + target].image),
                    f"{names[source.label]}, told {name}",
                    CONTROL_COLOUR if own else OUTLIER_COLOUR,
                    small=f"{_right_label(sources)}: control" if own else "",
                    id=str(i),
                )
            )
    _grid("grid_all", cells, rows, bundle, sources)
    return made


def _show_numbers(state: LabState, wrong: list[tuple[int, Outlier]]) -> tuple[int, int] | None:
    """Shows shift and PSNR of outliers, given as (index of the source, outlier), and of the controls.

    Returns:
        `LabState.same`.
    """
    bundle, sources, right = state.bundle, state.sources, list(enumerate(state.controls))
    columns, same = st.columns(4), None
    if bundle.clusterer is not None:
        for column, made, name in zip(columns, (wrong, right), _SHIFT_HELP, strict=False):
            labels = np.array([sources[i].label for i, _ in made])
            changed = int((clusters_of(bundle, [e.image for _, e in made]) != labels).sum())
            column.metric(name, f"{changed} of {len(made)}", help=_SHIFT_HELP[name])
            if made is wrong:
                same = (len(made) - changed, len(made))
    if sources[0].has_mask:
        names = ("background, outlier", "background, control")
        for column, made, name in zip(columns[2:], (wrong, right), names, strict=True):
            psnr = mean_psnr([(sources[i], e) for i, e in made])
            column.metric(name, f"{psnr:.1f} dB" if np.isfinite(psnr) else "untouched", help=_PSNR_HELP)
    return same
