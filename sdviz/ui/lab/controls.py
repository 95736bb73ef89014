"""The controls of the lab: S, w, the wrong label and, under Advanced, the sampler."""

import streamlit as st

from sdviz.bundle import Bundle
from sdviz.diffusion.samplers import SAMPLERS
from sdviz.outliers import Recipe
from sdviz.ui.cluster_names import plain_names, usual_names
from sdviz.ui.lab.sources import MAX_DRAW, MAX_SOURCES
from sdviz.ui.lab.state import ALL_OTHERS, RANDOM_OTHER, SOLVERS, Settings
from sdviz.ui.outliers import s_slider, w_slider


def what_a_link_takes(bundle: Bundle) -> dict[str, str]:
    """Returns each parameter of the address with its possible values in words."""
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


def show_controls(bundle: Bundle) -> Settings:
    """Draws the widgets, the rare ones under Advanced."""
    columns = st.columns([2.9, 2.5, 2.0, 1.6], vertical_alignment="top")
    with columns[0]:
        s = s_slider(bundle, "S", bind="query-params")
        sigma, a_bar = bundle.schedule.sigma(s), bundle.schedule.alpha_bar(s)
        st.caption(f"σ = {sigma:.2f} (noise over signal), ᾱ = {a_bar:.3f}")
    with columns[1]:
        w = w_slider(bundle, "w", bind="query-params")
        meaning = {-1.0: "no condition at all, ", 0.0: "plainly conditional, "}.get(w, "")
        st.caption(f"{meaning}`guidance_scale` {1 + w:g} in diffusers")
    with columns[2]:
        names = usual_names(bundle)
        _take_link_name(bundle)
        target = st.selectbox(
            "Told to be", [RANDOM_OTHER, ALL_OTHERS, *names], key="target", bind="query-params"
        )
        st.caption("the label it is denoised under")
    with columns[3], st.container(gap=None):
        st.space(28)  # px, as high as a label
        with st.popover("Advanced", width="stretch"):
            advanced = _advanced(bundle, s, w)
    return Settings(advanced, target)


def shown_by_link_name(bundle: Bundle) -> dict[str, str]:
    """Returns the name of each cluster as shown now, by both names it may have in a link.

    A link was made with known classes shown ("cluster 5, often bird") or hidden ("cluster 5").
    """
    shown = usual_names(bundle)
    return dict(zip((*bundle.class_names, *plain_names(bundle)), (*shown, *shown), strict=True))


def _take_link_name(bundle: Bundle) -> None:
    """Replaces a wrong label of a link by the shown name of its cluster."""
    asked = st.session_state.get("target", st.query_params.get("target", ""))
    shown = shown_by_link_name(bundle).get(asked, asked)
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
    uses_eta = SAMPLERS[solver].uses_eta
    with_eta = " and ".join(one.title for one in SAMPLERS.values() if one.uses_eta)
    eta = st.slider(
        f"η, fresh noise in {with_eta}",
        0.0,
        1.0,
        0.0,
        0.05,
        key="eta",
        bind="query-params",
        disabled=not uses_eta,
        help=f"0 is deterministic, 1 is close to ancestral sampling. Only {with_eta} has it.",
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
    low, high = min(low, high), max(low, high)  # a link may swap them
    interval = None if (low, high) == (0.0, max_sigma) else (low, high)
    return bundle.recipe(s, w, steps, solver, eta if uses_eta else 0.0, interval, int(seed))


def _max_sigma(bundle: Bundle) -> float:
    return round(bundle.schedule.sigma(bundle.manifest.max_train_timestep) + 0.005, 2)
