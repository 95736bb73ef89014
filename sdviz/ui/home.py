"""The landing page, below its title."""

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.bundle.generated import GENERATED
from sdviz.data import MissingDataError
from sdviz.nn.device import device_name
from sdviz.outliers import OutlierRequest, draw_target_labels
from sdviz.ui.cache.bundles import load_to_show, set_to_show
from sdviz.ui.cache.kept import kept
from sdviz.ui.cache.outliers import make_outliers
from sdviz.ui.cluster_names import usual_names
from sdviz.ui.components.picture_grid import Cell, Label, picture_grid
from sdviz.ui.outliers import clusters_of
from sdviz.ui.page import LAB, OUTLIERS_LIVE, PageContext, open_page, show_missing_bundle
from sdviz.ui.pictures import ID_COLOUR, NEUTRAL_COLOUR, OUTLIER_COLOUR, data_uri
from sdviz.ui.text import code_span, plain

N_EXAMPLES = 6
# how many images to label: the first 200 usually hold every cluster, else more
EXAMPLES_AMONG = (200, 4_000)
WAIT = "Making six outliers with the bundle"


def show_home(context: PageContext) -> None:
    """Shows the button to the lab, examples, and the bundle, data and device in use."""
    columns = st.columns([1.2, 3], vertical_alignment="center")
    with columns[0]:
        if st.button("Open the outlier lab", icon=":material/science:", type="primary", width="stretch"):
            open_page(LAB)
    if context.bundle is None:
        show_missing_bundle(context, OUTLIERS_LIVE)
    else:
        _examples(context.bundle, columns[1])
    st.divider()
    _in_use(context.bundle)


def _of_how_many(bundle: Bundle) -> str:
    n = min(N_EXAMPLES, bundle.n_clusters)
    number = "six" if n == N_EXAMPLES else str(n)
    return f"{number} {'clusters' if _uses_clusterer(bundle) else 'classes'}"


def _uses_clusterer(bundle: Bundle) -> bool:
    """Tells whether the cluster of an example comes from the clusterer; else it is the label in the data."""
    return bundle.clusterer is not None and bundle.manifest.labels_from != "ground truth"


@kept("examples")
def first_examples(bundle: Bundle) -> list[OutlierRequest]:
    """Picks the first test or generated image of each of the first clusters. Raises DataError: none is here."""
    for limit in EXAMPLES_AMONG:
        images = load_to_show(bundle, set_to_show(bundle), limit)
        labels = images.labels
        if _uses_clusterer(bundle):
            labels = clusters_of(bundle, images.images)
        members = [np.flatnonzero(labels == c) for c in range(bundle.n_clusters)]
        rows = [int(rows_of[0]) for rows_of in members if len(rows_of)][:N_EXAMPLES]
        if len(rows) == min(N_EXAMPLES, bundle.n_clusters):
            break
    targets = draw_target_labels(labels[rows], images.ids[rows], bundle.n_clusters, seed=0)
    recipe = bundle.recipe()
    return [
        OutlierRequest(str(images.ids[r]), images.images[r], int(labels[r]), int(t), recipe)
        for r, t in zip(rows, targets, strict=True)
    ]


def _examples(bundle: Bundle, above: DeltaGenerator) -> None:
    """Shows a few images with outliers made now, and in `above` a line about them."""
    try:
        requests = first_examples(bundle)
    except data.DataError as error:
        above.caption("Move S and w yourself, on other data sets or on your own pictures.")
        # a line at the top says where to get a missing set
        if not isinstance(error, MissingDataError):
            st.info(f"No examples here: {plain(str(error))}.")
        return
    if not requests:
        return
    is_generated = set_to_show(bundle) == GENERATED
    what = "generated" if is_generated else "test"
    above.caption(
        f"The first {what} image of each of {_of_how_many(bundle)}, not picked for success. "
        "Move S and w yourself, on these, on other data sets or on your own pictures."
    )
    place = st.empty()
    place.progress(0.0, WAIT)
    made = make_outliers(bundle, requests, lambda done: place.progress(done, WAIT))
    names, recipe = usual_names(bundle), bundle.recipe()
    sigma = bundle.schedule.sigma(recipe.start_timestep)
    was, targets = ([names[getattr(request, key)] for request in requests] for key in ("label", "target_label"))
    first = "generated" if is_generated else "original"
    cells = [
        Cell(data_uri(request.image), f"{first}: {name}", NEUTRAL_COLOUR if is_generated else ID_COLOUR, name)
        for request, name in zip(requests, was, strict=True)
    ]
    cells += [Cell(data_uri(e.noised), "the same, noised", NEUTRAL_COLOUR) for e in made]
    cells += [
        Cell(data_uri(e.image), f"outlier, told {name}", OUTLIER_COLOUR, f"told {name}")
        for e, name in zip(made, targets, strict=True)
    ]
    place.empty()
    with place.container():
        picture_grid(
            cells,
            len(requests),
            key="examples",
            size_px=128,
            row_names=[
                Label(first, "from noise" if is_generated else "in-distribution"),
                Label(f"noised, S = {recipe.start_timestep}", f"σ {sigma:.2f}"),
                Label("outlier", f"w = {recipe.guidance_scale:g}"),
            ],
        )
        if bundle.clusterer is not None:
            seen = _clusters_of_examples(bundle, [e.image for e in made])
            _say_what_changed(int((seen == [request.label for request in requests]).sum()), len(requests))


@kept("clusters of examples")
def _clusters_of_examples(bundle: Bundle, outliers: list[np.ndarray]) -> np.ndarray:
    """Returns the cluster of each example's outlier; it depends only on the bundle and the data folder."""
    return clusters_of(bundle, outliers)


def _say_what_changed(same: int, n: int) -> None:
    says = f"The bundle's own clusterer still calls {same} of these {n} outliers what their originals are"
    if 2 * same > n:
        st.info(f"**This bundle's outliers hardly change the object.** {says}.", icon=":material/info:")
    else:
        st.caption(f"{says}.")


def _in_use(bundle: Bundle | None) -> None:
    if bundle is None:
        about = ["None yet. A bundle is a trained system in one folder."]
        device = ["Chosen when a bundle is opened: CUDA, then MPS, then the CPU."]
    else:
        m = bundle.manifest
        about = [
            f"{code_span(bundle.path.name if bundle.path else 'in memory')}, trained on "
            f"{code_span(m.dataset)}: "
            f"{m.n_clusters} clusters, labels from {plain(m.labels_from)}; S up to {m.max_train_timestep}. "
            f"Usual settings: S = {m.defaults.start_timestep}, w = {m.defaults.guidance_scale:g}, "
            f"{m.defaults.num_inference_steps} steps of {m.defaults.solver}.",
            f"Clusters: {', '.join(map(plain, usual_names(bundle)))}.",
        ]
        device = [
            f"{device_name(bundle.device)}, {bundle.inference.description}.",
            "CUDA is taken where there is some, then MPS, then the CPU; all work.",
        ]
    sets = [
        "On this machine: " + ", ".join(map(code_span, data.names())) + ".",
        f"More sets go to `{data.data_root()}` (or set `SDVIZ_DATA`); "
        "`python -m sdviz download cifar10` fetches one.",
    ]
    cards = {"Bundle": about, "Data": sets, "Device": device}
    for column, (title, lines) in zip(st.columns(3), cards.items(), strict=True):
        with column, st.container(border=True, height="stretch"):
            st.markdown(f"**{title}**")
            for line in lines:
                st.caption(line)
