"""What goes with a person from page to page and stands in the address: sample, k, alpha, threshold.

They are no widget's own values, which a page that does not draw the widget would forget: widgets show them
and report changes through `set_shared`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import streamlit as st

from sdviz.evidence import Evidence, MissingPart
from sdviz.evidence.rescoring import MAX_K
from sdviz.ui.links import keep_link_values, restore_link_values, set_link_value

# sample: an image's id; set: a scored set; k, alpha, unit (1 or 0): Eq. 6; t: the threshold; without the last
# four the bundle's own hold
SHARED = ("sample", "set", "k", "alpha", "unit", "t")
OF_A_BUNDLE = SHARED  # another bundle has other ids and other scores


@dataclass(frozen=True)
class ScoreSettings:
    """Eq. 6 as the person has set it.

    Attributes:
        k: Neighbours that count.
        alpha: Weight of a vote.
        normalize: Whether features are brought to unit length.
        is_own: Whether these are the bundle's own settings, by which it was measured.
    """

    k: int
    alpha: float
    normalize: bool
    is_own: bool


def enter_page(entered: bool) -> None:
    """For every page's set-up: puts the shared values back into the address, and takes those of a link."""
    if entered:
        restore_link_values(SHARED)
    keep_link_values(SHARED)


def forget_shared() -> None:
    """For another bundle: its ids and scores are others."""
    for key in OF_A_BUNDLE:
        set_link_value(key, "")


def set_shared(key: str, value: object) -> None:
    """Changes one of `SHARED`, on this page, in the address and on the pages to come; None takes it out."""
    set_link_value(key, "" if value is None else str(value))


def sample() -> str:
    """The id of the image that the person is looking at, "" for none."""
    return str(st.session_state.get("sample", ""))


def chosen_set(evidence: Evidence) -> str:
    """The scored set that the person is looking at, "" for none or one that this bundle has not."""
    try:
        known = evidence.sets
    except MissingPart:
        return ""
    name = str(st.session_state.get("set", ""))
    return name if name in known else ""


def max_k(evidence: Evidence) -> int:
    """The largest k that pages offer for this bundle."""
    try:
        return max(1, min(MAX_K, len(evidence.banks.id_features) - 1))
    except MissingPart:
        return 1


def score_settings(evidence: Evidence) -> ScoreSettings | None:
    """k, alpha and normalisation: the person's, else the bundle's own; None without a detector."""
    own = evidence.bundle.manifest.score
    if own is None:
        return None
    k = _number("k", own.k)
    alpha = _number("alpha", own.alpha)
    unit = st.session_state.get("unit", "")
    normalize = own.normalize if unit not in ("0", "1") else unit == "1"
    k = min(max(1, round(k)), max(own.k, max_k(evidence)))
    alpha = max(0.0, alpha)
    same = (k, alpha, normalize) == (own.k, own.alpha, own.normalize)
    return ScoreSettings(k, alpha, normalize, same)


def threshold(own: float) -> float:
    """The threshold that the person has set, else `own`: the one at 95 % ID recall."""
    return _number("t", own)


def has_own_threshold() -> bool:
    """Whether the threshold is still the one at 95 % ID recall."""
    return not st.session_state.get("t", "")


def _number(key: str, usual: float) -> float:
    try:
        value = float(st.session_state.get(key, "") or usual)
    except ValueError:
        return usual
    return value if math.isfinite(value) else usual


def _changed(key: str, widget: str) -> None:
    value = st.session_state[widget]
    set_shared(key, (1 if value else 0) if key == "unit" else f"{value:g}")
    # another score has another scale
    if not has_own_threshold():
        st.toast("The threshold is back at 95 % ID recall: another score has another scale.")
    set_shared("t", None)


def _back_to_own() -> None:
    for key in ("k", "alpha", "unit", "t"):
        set_shared(key, None)


def score_controls(evidence: Evidence, page: str) -> ScoreSettings | None:
    """k, alpha and normalisation in one row; what is set here holds on every page.

    Args:
        evidence: Of the bundle in use.
        page: Begins the widgets' keys.

    Returns:
        What they say; None, and nothing drawn, in a bundle without a detector.
    """
    settings = score_settings(evidence)
    own = evidence.bundle.manifest.score
    if settings is None or own is None:
        return None
    columns = st.columns([1.5, 1.4, 1.3, 1.6], vertical_alignment="bottom")
    most = max(own.k, max_k(evidence))
    for name, value in (("k", settings.k), ("alpha", settings.alpha), ("unit", settings.normalize)):
        st.session_state[f"{page}_{name}"] = value
    with columns[0]:
        st.slider(
            "k, neighbours that count",
            1,
            most,
            key=f"{page}_k",
            on_change=_changed,
            args=("k", f"{page}_k"),
            help=f"Eq. 6 looks at the k nearest. This bundle was measured with k = {own.k}.",
        )
    with columns[1]:
        st.number_input(
            "α, weight of a vote",
            0.0,
            10.0,
            step=0.01,
            format="%.3f",
            key=f"{page}_alpha",
            on_change=_changed,
            args=("alpha", f"{page}_alpha"),
            help=f"This bundle was measured with α = {own.alpha:g}.",
        )
    with columns[2]:
        st.toggle(
            "Unit length",
            key=f"{page}_unit",
            on_change=_changed,
            args=("unit", f"{page}_unit"),
            help="Brings every image's features to length 1 before distances are taken.",
        )
    with columns[3]:
        st.button(
            "The bundle's own",
            key=f"{page}_own",
            on_click=_back_to_own,
            disabled=settings.is_own,
            icon=":material/undo:",
            width="stretch",
        )
    return settings
