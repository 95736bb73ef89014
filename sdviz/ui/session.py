"""Values in the address that all pages share: the image in use, its set, k, alpha, the threshold.

Streamlit drops the value of a widget that a page does not draw, so these belong to no widget. Widgets show them
and report changes with `set_shared`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from sdviz.analysis import Evidence, MissingPart, PictureLibrary
from sdviz.analysis.rescoring import MAX_K
from sdviz.analysis.tables import or_none
from sdviz.analysis.votes import find_sample
from sdviz.ui.links import keep_link_values, not_taken, restore_link_values, set_link_value
from sdviz.ui.text import code_span

# sample: id of an image; set: a scored set; k, alpha, unit (1 or 0): Eq. 6; t: the threshold; truth: 1 if known
# classes are shown. If k, alpha, unit or t is absent, the bundle's own holds
SHARED = ("sample", "set", "k", "alpha", "unit", "t", "truth")
# values that belong to one bundle: another bundle drops them
OF_SCORES = {"t": "the threshold", "k": "k", "alpha": "α", "unit": "unit length on or off"}
MAX_ALPHA = 10.0


@dataclass(frozen=True)
class ScoreChoice:
    """The settings of Eq. 6 in use."""

    k: int  # neighbours that count
    alpha: float  # weight of a vote
    normalize: bool  # features are brought to unit length
    is_own: bool  # these are the bundle's own settings, with which it was measured

    @property
    def features(self) -> str:
        """The normalisation in words."""
        return "of unit length" if self.normalize else "as they are"


def enter_page(entered: bool) -> None:
    """For the set-up of a page: puts the shared values back into the address and takes those of a link."""
    if entered:
        restore_link_values(SHARED)
    keep_link_values(SHARED)


def has_score_values() -> bool:
    """Tells whether a person or a link has set the threshold or anything of Eq. 6."""
    return any(st.session_state.get(key, "") for key in OF_SCORES)


def drop_scores() -> list[str]:
    """For a switch of bundles: drops the threshold and the settings of Eq. 6; returns their names."""
    dropped = [title for key, title in OF_SCORES.items() if st.session_state.get(key, "")]
    for key in OF_SCORES:
        set_link_value(key, "")
    return dropped


def drop_unknown(evidence: Evidence, library: PictureLibrary) -> list[str]:
    """For a switch of bundles: drops an image or set that the new bundle lacks; returns their names."""
    dropped = []
    one, group = sample(), str(st.session_state.get("set", ""))
    if one and find_sample(evidence, one) is None and not library.show([one]).found[0]:
        set_shared("sample", None)
        dropped.append(f"the image {code_span(one)}")
    if group and not chosen_set(evidence):
        set_shared("set", None)
        dropped.append(f"the set {code_span(group)}")
    return dropped


def refuse_shared(evidence: Evidence) -> str:
    """Drops impossible values of Eq. 6 and the threshold; returns one line on them, "" for none."""
    own = evidence.bundle.manifest.score
    if own is None:
        return ""
    most = max(own.k, max_k(evidence))
    misses = {}
    for key, fits, takes in (
        ("k", lambda value: value == round(value) and 1 <= value <= most, f"a whole number from 1 to {most}"),
        ("alpha", lambda value: 0 <= value <= MAX_ALPHA, f"from 0 to {MAX_ALPHA:g}"),
        ("unit", lambda value: value in (0, 1), "1 or 0"),
        ("t", lambda value: 0 <= value <= highest_threshold(evidence), ""),
    ):
        said = str(st.session_state.get(key, ""))
        if said and not _fits(said, fits):
            takes = takes or f"from 0 to {highest_threshold(evidence):.4g}, above which no score can be"
            misses[key] = (said, takes)
            set_shared(key, None)
    return not_taken(misses)


def _fits(said: str, fits: Callable[[float], bool]) -> bool:
    try:
        value = float(said)
    except ValueError:
        return False
    return math.isfinite(value) and fits(value)


def highest_threshold(evidence: Evidence) -> float:
    """Returns the largest possible score under the settings in use: all distances and votes at maximum."""
    settings = score_settings(evidence)
    assert settings is not None
    length = 1.0
    if not settings.normalize:
        try:
            parts = [evidence.banks.id_features, evidence.banks.outlier_features]
            parts += [one.features for one in evidence.shown_sets.values() if one.features is not None]
        except MissingPart:
            return math.inf
        length = max(float(np.linalg.norm(one, axis=1).max()) for one in parts if len(one))
    return settings.k * ((2 * length) ** 2 + settings.alpha)


def set_shared(key: str, value: object) -> None:
    """Sets one of `SHARED` for all pages and in the address; None removes it."""
    set_link_value(key, "" if value is None else str(value))


def opener(key: str) -> Callable[[], None]:
    """Returns the `on_click` of a grid that makes the clicked picture the image in use."""

    def clicked() -> None:
        if one := st.session_state[key].clicked:
            set_shared("sample", one)

    return clicked


def sample() -> str:
    """Returns the id of the image in use, "" for none."""
    return str(st.session_state.get("sample", ""))


def chosen_set(evidence: Evidence) -> str:
    """Returns the scored set in use, "" for none or for one that this bundle lacks."""
    name = str(st.session_state.get("set", ""))
    return name if name in (or_none(lambda: evidence.shown_sets) or {}) else ""


def max_k(evidence: Evidence) -> int:
    """Returns the largest k that pages offer for this bundle."""
    banks = or_none(lambda: evidence.banks)
    return 1 if banks is None else max(1, min(MAX_K, len(banks.id_features) - 1))


def score_settings(evidence: Evidence) -> ScoreChoice | None:
    """Returns the settings of Eq. 6 set on a page, or without any the bundle's; None without a detector."""
    own = evidence.bundle.manifest.score
    if own is None:
        return None
    k = _number("k", own.k)
    alpha = _number("alpha", own.alpha)
    unit = st.session_state.get("unit", "")
    normalize = own.normalize if unit not in ("0", "1") else unit == "1"
    k = min(max(1, round(k)), max(own.k, max_k(evidence)))
    alpha = min(max(0.0, alpha), MAX_ALPHA)
    same = (k, alpha, normalize) == (own.k, own.alpha, own.normalize)
    return ScoreChoice(k, alpha, normalize, same)


def threshold(own: float) -> float:
    """Returns the threshold set on a page, or without one `own`, the one that pages start with."""
    return _number("t", own)


def has_own_threshold() -> bool:
    """Tells whether the threshold is the one that pages start with."""
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
    if not has_own_threshold():
        st.toast("The threshold is back at its start: another score has another scale.")
    set_shared("t", None)


def _back_to_own() -> None:
    drop_scores()


def score_controls(evidence: Evidence, page: str) -> ScoreChoice | None:
    """Draws the widgets of k, alpha and normalisation; nothing without a detector."""
    settings = score_settings(evidence)
    own = evidence.bundle.manifest.score
    if settings is None or own is None:
        return None
    columns = st.columns([1.5, 1.4, 1.3, 1.6], vertical_alignment="bottom")
    most = max(own.k, max_k(evidence))
    widgets: dict[str, dict[str, Any]] = {}
    for name, value in (("k", settings.k), ("alpha", settings.alpha), ("unit", settings.normalize)):
        key = f"{page}_{name}"
        st.session_state[key] = value
        widgets[name] = {"key": key, "on_change": _changed, "args": (name, key)}
    columns[0].slider(
        "k, neighbours that count",
        1,
        most,
        **widgets["k"],
        help=f"Eq. 6 looks at the k nearest. This bundle was measured with k = {own.k}.",
    )
    columns[1].number_input(
        "α, weight of a vote",
        0.0,
        MAX_ALPHA,
        step=0.01,
        format="%g",
        **widgets["alpha"],
        help=f"This bundle was measured with α = {own.alpha:g}.",
    )
    columns[2].toggle(
        "Unit length",
        **widgets["unit"],
        help="Brings every image's features to length 1 before distances are taken.",
    )
    columns[3].button(
        "The bundle's own",
        key=f"{page}_own",
        on_click=_back_to_own,
        disabled=settings.is_own,
        icon=":material/undo:",
        width="stretch",
    )
    return settings
