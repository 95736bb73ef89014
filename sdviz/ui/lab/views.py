"""The views below the grid of the lab: scrub strip, S x w sheet, trajectory, S curve, download."""

from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st

from sdviz.bundle import Bundle
from sdviz.outliers import OutlierRequest, Recipe
from sdviz.ui.charts import Chart, draw_chart
from sdviz.ui.charts.parts import Line, Mark
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.components.scrub_strip import Frame, scrub_strip
from sdviz.ui.lab.export import export_png, export_zip
from sdviz.ui.lab.state import LabState, Run, mean_psnr, runner
from sdviz.ui.outliers import clusters_of, s_values
from sdviz.ui.pictures import CONTROL_COLOUR, NEUTRAL_COLOUR, OUTLIER_COLOUR, data_uri
from sdviz.ui.text import counted, plain
from sdviz.ui.widgets import download

SCRUB, SHEET, TRAJECTORY, CURVE, DOWNLOAD = "Scrub S", "S x w sheet", "Trajectory", "S curve", "Download"
SHEET_W = (0.0, 1.0, 2.0, 4.0)
N_SCRUB_FRAMES = 13
N_CURVE_POINTS = 9


def show_view(state: LabState) -> None:
    """Shows the chosen view. The others are not computed."""
    masked = state.sources[0].has_mask and state.bundle.clusterer is not None
    options = [SCRUB, SHEET, TRAJECTORY, *([CURVE] if masked else []), DOWNLOAD]
    st.divider()
    view = st.segmented_control(
        "Look closer", options, default=SCRUB, key="view", bind="query-params", required=True
    )
    slot = st.container(height=46, border=False).empty()
    if view == DOWNLOAD:
        _download(state)
    else:
        _VIEWS[view](state, runner(state.bundle, slot))
    is_generated = state.source.is_generated
    if view in (SCRUB, SHEET, TRAJECTORY):
        more = " Click another picture above to change it." if len(state.sources) > 1 else ""
        what = (
            f"{plain(state.source_name)}, told {plain(state.target_name)}"
            + ", generated from noise" * is_generated
        )
        slot.caption(f"About image {state.focus + 1} of {len(state.sources)}: {what}.{more}")
    elif view == CURVE:
        slot.caption(f"About {len(state.sources)} images: those shown above.")
    else:
        generated = " The network generated the images from noise: they are no real ones." * is_generated
        slot.caption(f"What is shown above, to keep.{generated}")


def _request(state: LabState, row: int, recipe: Recipe, right: bool = False) -> OutlierRequest:
    source = state.sources[row]
    target = source.label if right else int(state.targets[row])
    return source.request(target, recipe)


def scrub_frames(bundle: Bundle, request: OutlierRequest) -> tuple[list[int], list[OutlierRequest]]:
    """Returns S of each frame of the scrub strip, and requests for the outliers, then for the controls."""
    values = s_values(bundle.manifest.max_train_timestep, N_SCRUB_FRAMES)
    wrong = [replace(request, recipe=replace(request.recipe, start_timestep=s)) for s in values]
    return values, wrong + [replace(one, target_label=one.label) for one in wrong]


def _scrub(state: LabState, run: Run) -> None:
    values, requests = scrub_frames(state.bundle, _request(state, state.focus, state.settings.recipe))
    made = run(requests, "Making the frames")
    outliers, controls = made[: len(values)], made[len(values) :]
    source, source_name, target = state.source, state.source_name, state.target_name
    frames = []
    for s, outlier, control in zip(values, outliers, controls, strict=True):
        pictures = [data_uri(p) for p in (source.image, outlier.noised, outlier.image, control.image)]
        what = f"the {source.row_name} image" if s == 0 else f"{source_name}, told {target}"
        text = f"σ = {state.bundle.schedule.sigma(s):.2f}: {what}"
        frames.append(Frame(str(s), f"S = {s}", text, pictures))
    panels = [
        (source.row_name, source.colour),
        ("noised, x_S", NEUTRAL_COLOUR),
        (f"outlier, told {target}", OUTLIER_COLOUR),
        (f"control, told {source_name}", CONTROL_COLOUR),
    ]
    nearest = int(np.abs(np.array(values) - state.settings.recipe.start_timestep).argmin())

    def _set_s() -> None:
        st.session_state["S"] = int(st.session_state["scrub"].chosen)

    scrub_strip(frames, panels, key="scrub", at=nearest, on_choose=_set_s)
    st.caption(
        "Move the mouse over the strip: the frames are in your browser, nothing is sent. "
        f"A click takes that S to the slider above. {_what_to_watch(state)}"
    )


def _what_to_watch(state: LabState) -> str:
    """Tells what to watch for, or that the outliers on show hardly change the object."""
    if state.same is None or 2 * state.same[0] <= state.same[1]:
        return "Watch the object go before the background does."
    same, n = state.same
    return (
        f"At the S and w above the object hardly changes: the bundle's own clusterer still calls {same} of "
        f"{counted(n, 'outlier')} what the original is."
    )


def _set_s_and_w() -> None:
    s, w = st.session_state["sheet"].clicked.split("|")
    st.session_state["S"], st.session_state["w"] = int(s), float(w)


def _sheet(state: LabState, run: Run) -> None:
    max_s = state.bundle.manifest.max_train_timestep
    s_row = s_values(max_s, 6)[1:]
    grid = [(w, s) for w in SHEET_W for s in s_row]
    requests = [
        _request(state, state.focus, replace(state.settings.recipe, start_timestep=s, guidance_scale=w))
        for w, s in grid
    ]
    made = run(requests, "Making the sheet")
    r = state.settings.recipe
    now = (r.guidance_scale, r.start_timestep)
    cells = [
        Cell(data_uri(m.image), f"S={s}, w={w:g}", OUTLIER_COLOUR, id=f"{s}|{w}", chosen=(w, s) == now)
        for (w, s), m in zip(grid, made, strict=True)
    ]
    sigma = state.bundle.schedule.sigma
    picture_grid(
        cells,
        len(s_row),
        key="sheet",
        size_px=128,
        shrink=True,
        row_names=[Label(f"w = {w:g}", "conditional" if w == 0 else "") for w in SHEET_W],
        column_names=[Label(f"S = {s}", f"σ {sigma(s):.2f}") for s in s_row],
        on_click=_set_s_and_w,
    )
    st.caption("The same noise in every cell. A click takes that S and w to the sliders.")


def _trajectory(state: LabState, run: Run) -> None:
    r = state.settings.recipe
    if r.start_timestep == 0:
        st.info("S is 0: nothing is noised, so there is no way back to show. Raise S.")
        return
    wrong, right = _request(state, state.focus, r), _request(state, state.focus, r, right=True)
    made = run([wrong, right], "Following the steps", trajectory=True)
    timesteps = state.bundle.schedule.timesteps(r.start_timestep, r.num_inference_steps)
    shown = np.unique(np.linspace(0, len(timesteps) - 1, min(len(timesteps), 8)).round().astype(int))
    cells = []
    for one, colour in zip(made, (OUTLIER_COLOUR, CONTROL_COLOUR), strict=True):
        cells.append(Cell(data_uri(one.noised), "x_S", NEUTRAL_COLOUR))
        path = one.trajectory
        assert path is not None
        cells += [Cell(data_uri(path[i]), f"x_0 prediction of step {i + 1}", colour) for i in shown]
    sigma = state.bundle.schedule.sigma
    picture_grid(
        cells,
        len(shown) + 1,
        key="trajectory",
        size_px=96,
        row_names=[Label("outlier", "wrong label"), Label("control", "right label")],
        column_names=[
            Label("x_S", f"σ {sigma(r.start_timestep):.2f}"),
            *(Label(f"step {i + 1}", f"t={timesteps[i]}, σ {sigma(timesteps[i] + 1):.2f}") for i in shown),
        ],
    )
    st.caption(
        f"What the network believes the finished image to be, from x_S down to x_0: "
        f"{len(shown)} of {len(timesteps)} steps."
    )


def _curve(state: LabState, run: Run) -> None:
    sources, n = state.sources, len(state.sources)
    current = state.settings.recipe.start_timestep
    values = s_values(state.bundle.manifest.max_train_timestep, N_CURVE_POINTS)[1:]
    requests = []
    for s in values:
        recipe = replace(state.settings.recipe, start_timestep=s)
        requests += [_request(state, i, recipe, right) for right in (False, True) for i in range(n)]
    made = run(requests, "Measuring along S")
    labels = np.array([s.label for s in sources])
    seen = clusters_of(state.bundle, [m.image for m in made]).reshape(len(values), 2, n)
    shift = (seen != labels).mean(2)
    psnr = [
        mean_psnr(list(zip(sources, made[k * 2 * n : k * 2 * n + n], strict=True))) for k in range(len(values))
    ]
    kept = "background kept (dB, right axis)"
    chart = Chart(
        "S curve",
        "S, noising steps",
        "% of images",
        [
            Line("outlier: object changed", values, 100 * shift[:, 0], OUTLIER_COLOUR, markers=True),
            Line("control: object changed", values, 100 * shift[:, 1], CONTROL_COLOUR, markers=True),
            Line(kept, values, psnr, NEUTRAL_COLOUR, "dot", markers=True, on_right=True),
        ],
        [Mark(current, f"S = {current}")],
        y_range=(-4, 114),
        height=340,
        right_title="PSNR, dB",
    )
    draw_chart(chart, "curve")
    st.caption(
        f"Over the {counted(n, 'image')} shown; judged by the bundle's own clusterer. "
        "A good S lies where the green line is high, the pink one low and the background still close. "
        "Over 1,000 test images: docs/quality.md."
    )


def _download(state: LabState) -> None:
    columns = st.columns([1, 1, 2])
    for column, label, make, file, icon in (
        (columns[0], "PNG sheet", export_png, "sdviz-outliers.png", ":material/image:"),
        (columns[1], "ZIP of PNGs and manifest.csv", export_zip, "sdviz-outliers.zip", ":material/folder_zip:"),
    ):
        with column:
            download(label, partial(make, state), file, icon=icon, width="stretch")
    st.caption(
        "The ZIP holds each original, noised image, outlier and control at its own size. The manifest names "
        "source id, labels, S, sigma, w, guidance interval, solver, steps, eta, seed and the bundle's hash."
    )


_VIEWS = {SCRUB: _scrub, SHEET: _sheet, TRAJECTORY: _trajectory, CURVE: _curve}
