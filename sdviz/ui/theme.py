"""Colours and titles of sets and clusters, the same on every page."""

from collections.abc import Mapping

import streamlit as st

from sdviz.analysis import Evidence
from sdviz.analysis.paper_tables import SD_TEST
from sdviz.analysis.tables import OUTLIERS, TRAIN, or_none
from sdviz.bundle.generated import GENERATED_OUTLIERS
from sdviz.data import SHADES
from sdviz.ui.pictures import (
    FAR_OOD_COLOUR,
    ID_COLOUR,
    NEAR_OOD_COLOUR,
    NEUTRAL_COLOUR,
    OUTLIER_COLOUR,
    TRAIN_COLOUR,
)

# the colours of .streamlit/config.toml
DARK_TEXT, LIGHT_TEXT = "#1B2430", "#E8EDF2"
DARK_BACKGROUND, LIGHT_BACKGROUND = "#12161C", "#FFFFFF"

ROLE_NAMES = {
    "id": "ID",
    "near": "near-OOD",
    "far": "far-OOD",
    "validation": "validation",
    "sd": "SD outliers of test images",
    "generated": "from noise",
    "outlier": "outlier",
}
_SHADES = {
    "id": (ID_COLOUR,),
    "near": (NEAR_OOD_COLOUR, "#A83F00", "#F08A4B"),
    # shades of orange alone are hard to tell apart; sienna, sand and wine are not, for the colour-blind too
    "far": (FAR_OOD_COLOUR, "#A0522D", "#E3D36A", "#9A3A68", "#B87700"),
    "validation": ("#CC79A7", "#A14F7F", "#E3A9C9"),
    "sd": ("#6ED8B0", "#00634A"),  # near the outlier bank's green
}
# a set whose id is easy to confuse with the outlier bank, so its title says more
_SET_NAMES = {SD_TEST: ROLE_NAMES["sd"], GENERATED_OUTLIERS: "SD outliers of generated images"}
OOD_ROLES = ("near", "far", "validation")
# The first ten are visible on a white and on a nearly black page. Colour-blind people can tell them from the
# colours of training images and near-OOD images. The others are from the palette of Okabe and Ito
_CLUSTER_COLOURS = (
    "#5A48E0", "#AC8053", "#33CC99", "#8A4266", "#7FB03A", "#AA4499", "#75BDBD", "#32673B", "#BDBD75",
    "#888888", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00",
)  # fmt: skip


def is_dark() -> bool:
    """Tells whether this browser shows the dark theme."""
    return bool(st.context.theme.type == "dark")


def mark_colour() -> str:
    """Returns the colour of thresholds and other marks, the theme's text colour."""
    return LIGHT_TEXT if is_dark() else DARK_TEXT


def role_colours(roles: Mapping[str, str]) -> dict[str, str]:
    """Returns a colour for each set of `set_roles`: its own if built in, else the role's next free one."""
    colours, taken = {}, dict[str, list[int]]()
    # sets with a shade of their own come first, so that no other set takes it
    for name in sorted(roles, key=lambda one: _base(one) not in SHADES):
        scale = _SHADES.get(roles[name], (NEUTRAL_COLOUR,))
        used = taken.setdefault(roles[name], [])
        free = [row for row in range(len(scale)) if row not in used] or [len(used) % len(scale)]
        own = SHADES.get(_base(name), -1)
        used.append(own if own in free else free[0])
        colours[name] = scale[used[-1]]
    return colours | {OUTLIERS: OUTLIER_COLOUR, TRAIN: TRAIN_COLOUR}


def _base(name: str) -> str:
    """Returns a set's name without its split: "svhn" of "svhn:test"."""
    return name.partition(":")[0]


def set_roles(evidence: Evidence) -> dict[str, str]:
    """Returns the role of each set in the order of the configuration, scored or not."""
    config = evidence.bundle.manifest.config or {}
    evaluation = config.get("evaluation") or {}
    named = {name: role for role in OOD_ROLES for name in evaluation.get(role) or []}
    scored = {name: one.role for name, one in (or_none(lambda: evidence.shown_sets) or {}).items()}
    # the role that was measured counts, even if the configuration says another
    return {"test": "id"} | {name: scored.get(name, role) for name, role in named.items()} | scored


def set_colours(evidence: Evidence) -> dict[str, str]:
    """Returns the colour of each set of a bundle, of `OUTLIERS` and of `TRAIN`, the same on every page.

    A missing or unscored set does not change the colour of another.
    """
    return role_colours(set_roles(evidence))


def set_titles(evidence: Evidence) -> dict[str, str]:
    """Returns the title of each set with its role: "test (ID)", "shapes-novel (near-OOD)"."""
    return {
        name: set_name(name) if name in _SET_NAMES else f"{name} ({ROLE_NAMES.get(role, role)})"
        for name, role in set_roles(evidence).items()
    }


def set_name(name: str) -> str:
    """Returns the title of a set without its role. Files and links use its id."""
    return _SET_NAMES.get(name, name)


def cluster_colour(cluster: int) -> str:
    """Returns the colour of a cluster or class, the same on every page; grey for -1, the unknown one."""
    return _CLUSTER_COLOURS[cluster % len(_CLUSTER_COLOURS)] if cluster >= 0 else NEUTRAL_COLOUR
