"""The set-up that all pages share: title, menu, and the bundle in use."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from sdviz import __version__, runs
from sdviz.analysis.tables import HOW_TO_MAKE
from sdviz.bundle import MANIFEST, Bundle, BundleError
from sdviz.ui.assets import read_asset, style
from sdviz.ui.cache.bundles import open_bundle
from sdviz.ui.cache.evidence import open_evidence
from sdviz.ui.cache.kept import kept
from sdviz.ui.guests import show_sign_in
from sdviz.ui.links import not_taken, set_link_value
from sdviz.ui.missing import say_where_own_set_is
from sdviz.ui.session import SHARED, drop_scores, drop_unknown, enter_page, has_score_values, refuse_shared
from sdviz.ui.text import code_span, plain
from sdviz.ui.widgets import empty_state

ROOT = Path(__file__).resolve().parents[2]

LAB, EMBEDDINGS, VOTES = "pages/1_Outlier_lab.py", "pages/3_Embeddings.py", "pages/4_Sample_votes.py"
# (file, name, icon) of each page, in the menu's order
PAGES = [
    ("app.py", "Home", ":material/home:"),
    (LAB, "Outlier lab", ":material/science:"),
    ("pages/2_Pseudo_labels.py", "Pseudo-labels", ":material/category:"),
    (EMBEDDINGS, "Embeddings", ":material/scatter_plot:"),
    (VOTES, "Sample votes", ":material/how_to_vote:"),
    ("pages/5_Failures.py", "Failures", ":material/error_outline:"),
    ("pages/6_Results.py", "Results", ":material/query_stats:"),
    ("pages/7_Training.py", "Training", ":material/model_training:"),
]

BUNDLE = "bundle"
OUTLIERS_LIVE = "images beside the outliers made of them, moving with S and w"


@dataclass(frozen=True)
class PageContext:
    """The result of a page's set-up."""

    bundle: Bundle | None  # the bundle in use, None without one
    problem: str  # why there is none, in one line; "" with a bundle
    entered: bool  # the page was just opened: it is not the one that was shown last


@kept("icon")
def page_icon() -> Image.Image:
    """Draws the browser tab's icon, a blue and green disk. A named icon would come from the network."""
    y, x = np.mgrid[0:32, 0:32] - 15.5
    inside = np.hypot(x, y) < 14
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[inside & (x < 0)] = (0, 114, 178, 255)
    pixels[inside & (x >= 0) & ((x.astype(int) // 4 + y.astype(int) // 4) % 2 == 0)] = (0, 158, 115, 255)
    return Image.fromarray(pixels)


def find_bundles() -> dict[str, Path]:
    """Returns name and folder of each bundle: the shipped ones, then those of finished runs.

    `shapes` comes first and is opened by default: its images are drawn by code, so every machine has them.
    `SDVIZ_CHECKPOINTS` and `SDVIZ_RUNS` change the two folders.
    """
    shipped = Path(os.environ.get("SDVIZ_CHECKPOINTS", ROOT / "checkpoints"))
    folders = sorted((p.parent for p in shipped.glob(f"*/{MANIFEST}")), key=lambda p: (p.name != "shapes", p))
    found = {folder.name: folder for folder in folders}
    return found | {run.name: run.bundle for run in runs.list_runs() if (run.bundle / MANIFEST).is_file()}


def setup_page(title: str, idea: str, makes_outliers: bool = False) -> PageContext:
    """Sets a page up. With `makes_outliers` the bundle's networks are loaded now, else on first use."""
    st.set_page_config(
        page_title=f"{title} - sdviz", page_icon=page_icon(), layout="wide", initial_sidebar_state=250
    )
    st.html(style(__name__))
    entered = st.session_state.get("page_on_show") != title
    st.session_state["page_on_show"] = title
    with st.sidebar:
        st.markdown("### sdviz")
        st.caption("a workbench for semantic-discrepant outliers")
        for file, name, icon in PAGES:
            st.page_link(file, label=name, icon=icon)
        st.divider()
        bundle, problem = _choose_bundle(makes_outliers)
        show_sign_in()
        st.html(f"<script>{read_asset(__name__, '.js')}</script>", unsafe_allow_javascript=True)
    enter_page(entered)
    st.title(title)
    st.markdown(idea)
    if bundle is not None:
        _say_what_was_dropped(bundle)
        say_where_own_set_is(bundle)
    return PageContext(bundle, problem, entered)


def setup_bundle_page(title: str, idea: str, shows: str, makes_outliers: bool = False) -> tuple[Bundle, bool]:
    """Sets a page up and ends it without a bundle; returns bundle and `PageContext.entered`."""
    context = setup_page(title, idea, makes_outliers)
    if context.bundle is None:
        show_missing_bundle(context, shows)
        st.stop()
    return context.bundle, context.entered


# settings that belong to one bundle: another bundle drops them
_BUNDLE_SETTINGS = ("S", "w", "target", "steps", "solver", "interval", "data", "class")
# session keys: the bundle chosen or named by a link, and the names of dropped settings
_CHOSEN, _DROPPED = "bundle_chosen", "bundle_dropped"


def _take_bundle(name: str) -> None:
    of_lab = ["the outlier lab's settings"] if set(_BUNDLE_SETTINGS) & set(st.query_params) else []
    for key in _BUNDLE_SETTINGS:
        st.session_state.pop(key, None)
    st.session_state[_DROPPED] = [*drop_scores(), *of_lab]
    set_link_value(_CHOSEN, name, BUNDLE)


def open_page(file: str) -> None:
    """Opens another page of the menu, with the bundle in use and the values of `SHARED`.

    `st.switch_page` fails while the address holds a widget's value, so the widgets of this page are left out.
    Those of the next page write their own values.
    """
    carried = {key: st.query_params[key] for key in (BUNDLE, *SHARED) if key in st.query_params}
    st.switch_page(file, query_params=carried)


def choose_bundle(name: str) -> None:
    """For `on_click`: puts the bundle of that name in use on every page."""
    if st.session_state.get("bundle") != name:
        _take_bundle(name)


def _say_what_was_dropped(bundle: Bundle) -> None:
    """Shows a toast on values that a switch of bundles dropped, and a line on refused values of the link."""
    dropped = st.session_state.pop(_DROPPED, None)
    if dropped is not None:
        dropped += drop_unknown(*open_evidence(bundle))
        if dropped:
            st.toast(f"Dropped with the bundle before: {', '.join(dropped)}.")
    if has_score_values() and (line := refuse_shared(open_evidence(bundle)[0])):
        st.warning(line, icon=":material/link_off:")


def _choose_bundle(makes_outliers: bool) -> tuple[Bundle | None, str]:
    """Draws the chooser; returns the bundle, or None and why there is none."""
    bundles = find_bundles()
    if not bundles:
        st.caption("No bundle yet")
        return None, "There is no trained network on this machine yet."
    asked, kept = st.query_params.get(BUNDLE, ""), str(st.session_state.get(_CHOSEN, ""))
    name = next((one for one in (asked, kept) if one in bundles), next(iter(bundles)))
    # the default bundle is in the address only if somebody chose it or a link named it
    set_link_value(_CHOSEN, name if name in (asked, kept) else "", BUNDLE)
    st.session_state["bundle"] = name
    st.selectbox(
        "Bundle",
        list(bundles),
        key="bundle",
        on_change=lambda: _take_bundle(st.session_state["bundle"]),
        help="A trained system in one folder: the shipped ones, and those of your finished runs.",
    )
    if asked not in ("", kept, name):
        st.caption(not_taken({BUNDLE: (asked, "one of the list above")}))
    try:
        bundle = open_bundle(bundles[name])
        if makes_outliers:
            bundle.load_networks()
    except (BundleError, OSError) as error:
        return None, f"The bundle {name!r} cannot be opened: {error}"
    m = bundle.manifest
    st.caption(
        f"{m.n_clusters} clusters of {code_span(m.dataset)}, labels from {plain(m.labels_from)}. "
        f"S up to {m.max_train_timestep}. Runs on {bundle.device.type.upper()}. "
        f"Hash `{bundle.hash[:10]}`. sdviz {__version__}"
    )
    return bundle, ""


def show_missing_bundle(context: PageContext, what: str) -> None:
    """Shows the empty state of a page without a bundle; `what` ends "Here you would see ..."."""
    box = empty_state(
        plain(context.problem),
        f"Here you would see {what}. That needs a *bundle*: a trained system in one folder. "
        "The shipped one lives in `checkpoints/shapes`. To train a small one yourself (minutes on two "
        "CPU cores; it can be stopped and resumed):",
        HOW_TO_MAKE,
    )
    box.caption("When it is done, reload this page: the new bundle shows up in the menu at the left.")
