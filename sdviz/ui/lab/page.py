"""The outlier lab: its controls, the side-by-side grid and the views of one image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sdviz.bundle import Bundle
from sdviz.nn.device import device_name
from sdviz.outliers import Recipe, draw_target_labels
from sdviz.ui.cache import Edit, Edited, look_ahead
from sdviz.ui.cluster_names import plain_names, usual_names
from sdviz.ui.components import Cell, Words, picture_grid
from sdviz.ui.lab.sources import MAX_DRAW, MAX_SOURCES, Source, choose_sources, first_sources
from sdviz.ui.lab.state import (
    ALL_OTHERS,
    RANDOM_OTHER,
    SOLVERS,
    LabState,
    Run,
    Settings,
    interval_text,
    mean_psnr,
    runner,
)
from sdviz.ui.lab.views import scrub_frames, show_view
from sdviz.ui.links import asked_by_link, keep_link_values, refused, restore_link_values, set_link_value
from sdviz.ui.outliers import clusters_of
from sdviz.ui.page import PageContext, show_missing_bundle
from sdviz.ui.pictures import CONTROL_COLOUR, NEUTRAL_COLOUR, OUTLIER_COLOUR, data_uri, difference, heat_map
from sdviz.ui.text import counted

PICTURE_PX = 128
S_STEP = 5
W_MIN, W_MAX, W_STEP = -1.0, 8.0, 0.25
# Stand in the address, but belong to no widget
NO_WIDGETS = ("pick", "focus")


def show_lab(context: PageContext) -> None:
    """The page below its title."""
    if context.bundle is None:
        show_missing_bundle(context)
        return
    bundle = context.bundle
    allowed = _what_a_link_takes(bundle)
    asked = {}
    if context.entered:
        asked = asked_by_link(allowed)
        restore_link_values(NO_WIDGETS)
    place = st.empty()
    _lab(bundle, choose_sources(bundle))
    by_other = {_other_names(bundle).get(one, one): one for one in asked.get("target", [])}
    if line := refused(asked, allowed, {"solver": SOLVERS, "target": by_other}):
        place.caption(line)


def _what_a_link_takes(bundle: Bundle) -> dict[str, str]:
    """Each parameter of the address and what it may be, in words."""
    max_s = bundle.manifest.max_train_timestep
    return {
        "data": "a set of this machine",
        "class": "a class of the set",
        "n": f"1 to {MAX_SOURCES}",
        "draw": f"0 to {MAX_DRAW:,}",
        "pick": f"up to {MAX_SOURCES} ids of the set",
        "S": f"0 to {max_s}",
        "w": "-1 to 8",
        "target": "a cluster of the bundle",
        "solver": ", ".join(SOLVERS.values()),
        "steps": "1 to 100",
        "eta": "0 to 1",
        "seed": f"0 to {2**31 - 1}",
        "interval": f"two of 0 to {_max_sigma(bundle)}",
        "view": "one that these images have",
        "focus": "one of the images on show",
    }


@st.fragment
def _lab(bundle: Bundle, sources: list[Source]) -> None:
    keep_link_values(NO_WIDGETS)
    # the controls come first, images or not: a widget that is not drawn forgets its value
    settings = _controls(bundle)
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
            _show_pairs(bundle, sources, settings, targets, pick, right, focus)
        same = _show_numbers(bundle, sources, wrong, list(enumerate(right)))
    _status_line(status, bundle, settings, made)
    show_view(LabState(bundle, names, sources, settings, targets, pick, right, focus, same))
    if settings.target != ALL_OTHERS:
        look_ahead(bundle, [_pairs(sources, targets, r) for r in _next_recipes(bundle, settings.recipe)])


def _pairs(sources: list[Source], targets: np.ndarray, recipe: Recipe) -> list[Edit]:
    """The outlier of each source, then the control of each."""
    wrong = [Edit(s.id, s.image, s.label, int(t), recipe) for s, t in zip(sources, targets, strict=True)]
    return wrong + [replace(one, target=one.label) for one in wrong]


def _next_recipes(bundle: Bundle, now: Recipe) -> list[Recipe]:
    """Those one step of a slider away."""
    s, w = now.start_timestep, now.guidance_scale
    near = [replace(now, start_timestep=s + step) for step in (S_STEP, -S_STEP)]
    near += [replace(now, guidance_scale=w + step) for step in (W_STEP, -W_STEP)]
    max_s = bundle.manifest.max_train_timestep
    return [one for one in near if 0 <= one.start_timestep <= max_s and W_MIN <= one.guidance_scale <= W_MAX]


def first_view(bundle: Bundle) -> list[Edit]:
    """What the page makes when it is opened with nothing chosen yet.

    Raises:
        DataError: The bundle's own data is not here.
    """
    sources, recipe = first_sources(bundle), bundle.recipe()
    if not sources:
        return []
    labels, ids = np.array([s.label for s in sources]), np.array([s.id for s in sources])
    targets = draw_target_labels(labels, ids, bundle.n_clusters, recipe.seed)
    pairs = _pairs(sources, targets, recipe)
    return pairs + scrub_frames(bundle, pairs[0])[1]


# --------------------------------------------------------------------------------------------------
# Controls
# --------------------------------------------------------------------------------------------------


def _controls(bundle: Bundle) -> Settings:
    d, max_s = bundle.manifest.defaults, bundle.manifest.max_train_timestep
    columns = st.columns([2.9, 2.5, 2.0, 1.6], vertical_alignment="top")
    with columns[0]:
        s = st.slider(
            "S, noising steps",
            0,
            max_s,
            d.start_timestep,
            S_STEP,
            key="S",
            bind="query-params",
            help="How far the image is noised before it is denoised again. More steps leave less of it.",
        )
        sigma, a_bar = bundle.schedule.sigma(s), bundle.schedule.alpha_bar(s)
        st.caption(f"σ = {sigma:.2f} (noise over signal), ᾱ = {a_bar:.3f}")
    with columns[1]:
        w = st.slider(
            "w, guidance",
            W_MIN,
            W_MAX,
            float(d.guidance_scale),
            W_STEP,
            key="w",
            bind="query-params",
            help="Eq. 3: (1+w) ε(x, wrong label) - w ε(x, no label).",
        )
        meaning = {-1.0: "no condition at all, ", 0.0: "plainly conditional, "}.get(w, "")
        st.caption(f"{meaning}`guidance_scale` {1 + w:g} in diffusers")
    with columns[2]:
        names = usual_names(bundle)
        _take_other_name(bundle)
        target = st.selectbox(
            "Told to be", [RANDOM_OTHER, ALL_OTHERS, *names], key="target", bind="query-params"
        )
        st.caption("the label it is denoised under")
    with columns[3]:
        st.markdown("<div style='height:1.75rem'></div>", unsafe_allow_html=True)
        with st.popover("Advanced", width="stretch"):
            advanced = _advanced(bundle, s, w)
    return Settings(advanced, target)


def _other_names(bundle: Bundle) -> dict[str, str]:
    """The name on show of each cluster, by every name that it has with known classes and without them."""
    shown = usual_names(bundle)
    return dict(zip((*bundle.class_names, *plain_names(bundle)), (*shown, *shown), strict=True))


def _take_other_name(bundle: Bundle) -> None:
    """A target that a link, or this page before the switch of known classes, calls by its other name."""
    asked = st.session_state.get("target", st.query_params.get("target", ""))
    shown = _other_names(bundle).get(asked, asked)
    if shown != asked:
        st.session_state["target"] = shown


def _advanced(bundle: Bundle, s: int, w: float) -> Recipe:
    d = bundle.manifest.defaults
    solvers = list(SOLVERS)
    solver = st.selectbox(
        "Solver",
        solvers,
        index=solvers.index(d.solver),
        format_func=SOLVERS.__getitem__,
        key="solver",
        bind="query-params",
    )
    steps = st.slider(
        "Steps K, network calls from S to 0", 1, 100, d.num_inference_steps, key="steps", bind="query-params"
    )
    if s and steps > s:
        st.caption(f"K is above S: {s} steps are used.")
    eta = st.slider(
        "η, fresh noise in DDIM",
        0.0,
        1.0,
        0.0,
        0.05,
        key="eta",
        bind="query-params",
        disabled=solver != "ddim",
        help="0 is deterministic, 1 is close to ancestral sampling. Only DDIM has it.",
    )
    seed = st.number_input(
        "Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params", help="Fixes the noise and the wrong label."
    )
    max_sigma = _max_sigma(bundle)
    low, high = st.slider(
        "Guidance only where σ lies in",
        0.0,
        max_sigma,
        (0.0, max_sigma),
        0.01,
        key="interval",
        bind="query-params",
        help="Outside, the unconditional call is skipped and w does not count. "
        "The full range guides everywhere.",
    )
    low, high = min(low, high), max(low, high)  # a link may have them the other way round
    interval = None if (low, high) == (0.0, max_sigma) else (low, high)
    return bundle.recipe(s, w, steps, solver, eta if solver == "ddim" else 0.0, interval, int(seed))


def _max_sigma(bundle: Bundle) -> float:
    return round(bundle.schedule.sigma(bundle.manifest.max_train_timestep) + 0.005, 2)


# --------------------------------------------------------------------------------------------------
# Work and waiting
# --------------------------------------------------------------------------------------------------


def _status_line(status: DeltaGenerator, bundle: Bundle, settings: Settings, made: list[Edited]) -> None:
    r = settings.recipe
    sigma, ms = bundle.schedule.sigma(r.start_timestep), 1000 * sum(m.batch_sec / m.batch_images for m in made)
    with status.container():
        st.caption(
            f"S = {r.start_timestep} (σ {sigma:.2f}), w = {r.guidance_scale:g}{interval_text(r)}, "
            f"{SOLVERS[r.solver]}, {counted(made[0].network_calls, 'network call')}, "
            f"{counted(made[0].evaluations, 'evaluation')} a picture, "
            f"{ms:.0f} ms for {len(made)} pictures, "
            f"{device_name(bundle.device)}, {bundle.inference.description}"
        )


# --------------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------------


def _heads(bundle: Bundle, sources: list[Source]) -> list[Words]:
    return [
        Words(s.title, ", ".join(filter(None, (f"taken for {usual_names(bundle)[s.label]}", s.label_note))))
        if s.title
        else Words(usual_names(bundle)[s.label], s.label_note or s.id.rsplit("/", 1)[-1][:14])
        for s in sources
    ]


def _show_pairs(
    bundle: Bundle,
    sources: list[Source],
    settings: Settings,
    targets: np.ndarray,
    outliers: list[Edited],
    controls: list[Edited],
    focus: int,
) -> None:
    """Original, outlier, control, noised, difference: a column for each image."""
    r = settings.recipe
    sigma = bundle.schedule.sigma(r.start_timestep)
    names = usual_names(bundle)
    # at w = -1 only the unconditional prediction is left, whatever the label
    unlabelled = r.guidance_scale == -1
    cells: dict[str, list[Cell]] = {"original": [], "outlier": [], "control": [], "noised": [], "heat": []}
    for i, (source, out, control) in enumerate(zip(sources, outliers, controls, strict=True)):
        was = names[source.label]
        told, told_right = ("nothing", "nothing") if unlabelled else (names[int(targets[i])], was)
        ms = 1000 * out.batch_sec / out.batch_images
        facts = f"S {r.start_timestep}, σ {sigma:.2f}, w {r.guidance_scale:g}{interval_text(r)}"
        solver, device = SOLVERS[r.solver].split(",")[0], bundle.device.type.upper()
        how = f"{solver}, {counted(out.network_calls, 'call')}, {ms:.0f} ms, {device}"
        chosen = i == focus
        cells["original"].append(
            Cell(
                data_uri(source.image),
                f"{source.word}: {was}, {source.id}",
                source.colour,
                id=str(i),
                chosen=chosen,
            )
        )
        cells["outlier"].append(
            Cell(
                data_uri(out.outlier),
                f"outlier: {was}, told {told}",
                OUTLIER_COLOUR,
                f"told {told}",
                id=str(i),
                chosen=chosen,
            )
        )
        cells["control"].append(
            Cell(
                data_uri(control.outlier),
                f"control: {was}, told {told_right}",
                CONTROL_COLOUR,
                f"told {told_right}",
                id=str(i),
            )
        )
        cells["noised"].append(Cell(data_uri(out.noised), f"noised to S={r.start_timestep}", NEUTRAL_COLOUR))
        heat = heat_map(difference(source.image, out.outlier))
        cells["heat"].append(
            Cell(data_uri(heat), f"difference of {source.word} and outlier", NEUTRAL_COLOUR, facts, how)
        )
    rows = [
        Words(sources[0].word, sources[0].role),
        Words("outlier", "no label" if unlabelled else "wrong label"),
        Words("control", "no label" if unlabelled else _right_label(sources)),
        Words("noised", f"x_S at S={r.start_timestep}"),
        Words("difference", f"{sources[0].word} to outlier; yellow is half the range"),
    ]
    picture_grid(
        [cell for row in cells.values() for cell in row],
        len(sources),
        key="grid",
        size_px=PICTURE_PX,
        row_names=rows,
        column_names=_heads(bundle, sources),
        on_click=_focus_setter("grid"),
    )


def _right_label(sources: list[Source]) -> str:
    return "clusterer's label" if sources[0].label_note else "right label"


def _focus(count: int) -> int:
    """Row of the image that the views below are about; the address counts from 1."""
    asked = st.query_params.get("focus", "")
    if asked.isdecimal() and 1 <= int(asked) <= count:
        return int(asked) - 1
    if asked:
        set_link_value("focus", "")
    return 0


def _focus_setter(key: str) -> Callable[[], None]:
    def choose() -> None:
        set_link_value("focus", str(int(st.session_state[key].clicked) + 1))

    return choose


def _show_all_targets(
    bundle: Bundle,
    sources: list[Source],
    settings: Settings,
    run: Run,
    focus: int,
) -> list[Edited]:
    """Every image under every label; the right one is the control. Returns them source by source."""
    names = usual_names(bundle)
    edits = [
        Edit(s.id, s.image, s.label, target, settings.recipe) for s in sources for target in range(len(names))
    ]
    made = run(edits, "Denoising under every label")
    rows = [Words(sources[0].word, sources[0].role), *(Words(f"told {n}") for n in names)]
    cells = [
        Cell(
            data_uri(source.image),
            f"{source.word}: {names[source.label]}",
            source.colour,
            id=str(i),
            chosen=i == focus,
        )
        for i, source in enumerate(sources)
    ]
    for target, name in enumerate(names):
        for i, source in enumerate(sources):
            own = target == source.label
            cells.append(
                Cell(
                    data_uri(made[i * len(names) + target].outlier),
                    f"{names[source.label]}, told {name}",
                    CONTROL_COLOUR if own else OUTLIER_COLOUR,
                    small=f"{_right_label(sources)}: control" if own else "",
                    id=str(i),
                )
            )
    picture_grid(
        cells,
        len(sources),
        key="grid_all",
        size_px=PICTURE_PX,
        row_names=rows,
        column_names=_heads(bundle, sources),
        on_click=_focus_setter("grid_all"),
    )
    return made


# --------------------------------------------------------------------------------------------------
# Numbers under the pictures
# --------------------------------------------------------------------------------------------------


def _show_numbers(
    bundle: Bundle, sources: list[Source], wrong: list[tuple[int, Edited]], right: list[tuple[int, Edited]]
) -> tuple[int, int] | None:
    """Shift and background PSNR of outliers and controls, given as (row of the source, result).

    Returns:
        As `LabState.same`.
    """
    columns, same = st.columns(4), None
    if bundle.clusterer is not None:
        for column, name, made, words in (
            (
                columns[0],
                "shift, outlier",
                wrong,
                "Outliers that the bundle's own clusterer no longer calls what the original was.",
            ),
            (
                columns[1],
                "shift, control",
                right,
                "The same count under the right label: what noising alone does. Near 0 is good.",
            ),
        ):
            labels = np.array([sources[i].label for i, _ in made])
            changed = int((clusters_of(bundle, [e.outlier for _, e in made]) != labels).sum())
            column.metric(name, f"{changed} of {len(made)}", help=words)
            if made is wrong:
                same = (len(made) - changed, len(made))
    if not sources[0].has_mask:
        return same
    for column, name, made in (
        (columns[2], "background, outlier", wrong),
        (columns[3], "background, control", right),
    ):
        psnr = mean_psnr([(sources[i], e) for i, e in made])
        column.metric(
            name,
            f"{psnr:.1f} dB" if np.isfinite(psnr) else "untouched",
            help="PSNR outside the object's mask widened by 2 px, mean over the images shown. "
            "Higher is closer to the original; 25 dB is an error of 14 grey levels.",
        )
    return same
