"""Names of clusters on the pages: the bundle's own, or those that people gave on Pseudo-labels."""

import re
from pathlib import Path

import streamlit as st

from sdviz import runs
from sdviz.analysis import cluster_names as names
from sdviz.bundle import Bundle

# stands in the address: "1" where known classes are shown
TRUTH = "truth"
# a bundle's name of a cluster by its number and what is in it, as in "cluster 5, often bird"
_NUMBERED = re.compile(r"^(cluster \d+), .+$")


def names_file() -> Path:
    """The file of given names: in the folder of runs, never in a bundle."""
    return runs.runs_root() / names.FILE


def with_known_classes() -> bool:
    """Whether the person has switched on "Known classes" on Pseudo-labels."""
    return st.session_state.get(TRUTH, "") == "1"


def plain_names(bundle: Bundle) -> tuple[str, ...]:
    """The bundle's own names without a hint at classes: "cluster 5" for "cluster 5, often bird"."""
    return tuple(_NUMBERED.sub(r"\1", name) for name in bundle.class_names)


def usual_names(bundle: Bundle) -> tuple[str, ...]:
    """The bundle's name of each cluster; it hints at classes only where these are switched on."""
    return bundle.class_names if with_known_classes() else plain_names(bundle)


def display_names(bundle: Bundle) -> tuple[str, ...]:
    """The name of each cluster: the one given on Pseudo-labels, else the usual one."""
    return names.shown_names(usual_names(bundle), names.read_names(names_file(), bundle.hash))


def cluster_before(name: str, word: str = "cluster ") -> str:
    """The word to put before a cluster's name in a sentence; "" where the name begins with "cluster"."""
    return "" if name.lower().startswith("cluster") else word
