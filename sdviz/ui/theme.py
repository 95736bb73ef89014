"""Colours and titles of sets and clusters, the same on every page, and the layout of plots."""

from collections.abc import Mapping

import plotly.graph_objects as go
import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.paper_tables import SD_TEST
from sdviz.analysis.tables import OUTLIERS, TRAIN, or_none
from sdviz.data import SHADES
from sdviz.ui.pictures import (
    FAR_OOD_COLOUR,
    ID_COLOUR,
    NEAR_OOD_COLOUR,
    NEUTRAL_COLOUR,
    OUTLIER_COLOUR,
    TRAIN_COLOUR,
)

# The theme's own text colours, see .streamlit/config.toml: a threshold is black or white by theme
DARK_TEXT, LIGHT_TEXT = "#1B2430", "#E8EDF2"
DARK_BACKGROUND, LIGHT_BACKGROUND = "#12161C", "#FFFFFF"

ROLE_NAMES = {
    "id": "ID",
    "near": "near-OOD",
    "far": "far-OOD",
    "validation": "validation",
    "sd": "SD outliers of test images",
    "outlier": "outlier",
}
_NEAR_SHADES = (NEAR_OOD_COLOUR, "#A83F00", "#F08A4B")
# shades of orange alone are hard to tell apart; sienna, sand and wine are not, for the colour-blind too
_FAR_SHADES = (FAR_OOD_COLOUR, "#A0522D", "#E3D36A", "#9A3A68", "#B87700")
_VALIDATION_SHADES = ("#CC79A7", "#A14F7F", "#E3A9C9")
# the set's own id would not tell it from the bank's SD outliers
_SET_NAMES = {SD_TEST: ROLE_NAMES["sd"]}
_OOD_ROLES = ("near", "far", "validation")
# shades of the outlier bank's green
_SD_SHADES = ("#6ED8B0", "#00634A")
# clusters and classes have no order. The first ten are visible on white and on near-black and differ from the
# colours of training and near-OOD images, for the colour-blind too; then Okabe and Ito's
_CLUSTER_COLOURS = (
    "#5A48E0", "#AC8053", "#33CC99", "#8A4266", "#7FB03A", "#AA4499", "#75BDBD", "#32673B", "#BDBD75",
    "#888888", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00",
)  # fmt: skip


def is_dark() -> bool:
    """Whether this browser shows the dark theme."""
    return bool(st.context.theme.type == "dark")


def mark_colour() -> str:
    """The colour of thresholds and other marks: black or white by theme."""
    return LIGHT_TEXT if is_dark() else DARK_TEXT


def role_colours(roles: Mapping[str, str]) -> dict[str, str]:
    """A colour for each set by its role, as of `set_roles`: a built-in set's own, else the next free one."""
    shades = {"near": _NEAR_SHADES, "far": _FAR_SHADES, "validation": _VALIDATION_SHADES, "sd": _SD_SHADES}
    colours, taken = {}, dict[str, list[int]]()
    # sets with their own shade come first, so that no other set takes it
    for name in sorted(roles, key=lambda one: _base(one) not in SHADES):
        if roles[name] == "id":
            colours[name] = ID_COLOUR
            continue
        scale = shades.get(roles[name], (NEUTRAL_COLOUR,))
        used = taken.setdefault(roles[name], [])
        free = [row for row in range(len(scale)) if row not in used] or [len(used) % len(scale)]
        own = SHADES.get(_base(name), -1)
        used.append(own if own in free else free[0])
        colours[name] = scale[used[-1]]
    return colours | {OUTLIERS: OUTLIER_COLOUR, TRAIN: TRAIN_COLOUR}


def _base(name: str) -> str:
    """A set without its split: "svhn" of "svhn:test"."""
    return name.partition(":")[0]


def set_roles(evidence: Evidence) -> dict[str, str]:
    """The role of each set, in the order of the configuration, with those that were not scored."""
    config = evidence.bundle.manifest.config or {}
    evaluation = config.get("evaluation") or {}
    named = {name: role for role in _OOD_ROLES for name in evaluation.get(role) or []}
    scored = {name: one.role for name, one in (or_none(lambda: evidence.sets) or {}).items()}
    # the measured role counts where the configuration says another
    return {"test": "id"} | {name: scored.get(name, role) for name, role in named.items()} | scored


def set_colours(evidence: Evidence) -> dict[str, str]:
    """The colour of each set of a bundle, of `OUTLIERS` and of `TRAIN`, the same on every page.

    A set without scores, or that is not there, does not change the colour of another.
    """
    return role_colours(set_roles(evidence))


def set_titles(evidence: Evidence) -> dict[str, str]:
    """The title of each set with its role: "test (ID)", "shapes-novel (near-OOD)"."""
    return {
        name: set_name(name) if name in _SET_NAMES else f"{name} ({ROLE_NAMES.get(role, role)})"
        for name, role in set_roles(evidence).items()
    }


def set_name(name: str) -> str:
    """The title of a set without its role; files and links have its id."""
    return _SET_NAMES.get(name, name)


def cluster_colour(cluster: int) -> str:
    """A colour for a cluster or class, the same on every page; grey for -1, an unknown one."""
    return _CLUSTER_COLOURS[cluster % len(_CLUSTER_COLOURS)] if cluster >= 0 else NEUTRAL_COLOUR


def tidy(figure: go.Figure, height: int = 360, legend: bool = True) -> go.Figure:
    """Sets margins, legend and height of a plot, the same on every page."""
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 34 if legend else 12, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        showlegend=legend,
        hoverlabel={"font_size": 13},
    )
    return figure
