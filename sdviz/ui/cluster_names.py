"""Names of clusters on pages: the bundle's own, or those given on Pseudo-labels."""

import re
from pathlib import Path

import streamlit as st

from sdviz import runs
from sdviz.analysis import cluster_names as names
from sdviz.bundle import Bundle

# in the address: "1" if known classes are shown
TRUTH = "truth"
# a name with the number and the usual class, as in "cluster 5, often bird"
_NUMBERED = re.compile(r"^(cluster \d+), .+$")


def names_file() -> Path:
    """Returns the file of given names. It is in the folder of runs, never in a bundle."""
    return runs.runs_root() / names.FILE


def with_known_classes() -> bool:
    """Tells whether "Known classes" is switched on, on Pseudo-labels."""
    return st.session_state.get(TRUTH, "") == "1"


def plain_names(bundle: Bundle) -> tuple[str, ...]:
    """Returns the bundle's names without classes: "cluster 5" for "cluster 5, often bird"."""
    return tuple(_NUMBERED.sub(r"\1", name) for name in bundle.class_names)


def usual_names(bundle: Bundle) -> tuple[str, ...]:
    """Returns the bundle's names of clusters, with classes only if these are switched on."""
    return bundle.class_names if with_known_classes() else plain_names(bundle)


def current_names(bundle: Bundle) -> tuple[str, ...]:
    """Returns the name of each cluster: the one given on Pseudo-labels, else the usual one."""
    return names.shown_names(usual_names(bundle), names.read_names(names_file(), bundle.hash))


def cluster_before(name: str, word: str = "cluster ") -> str:
    """Returns the word before a cluster's name in a sentence, "" if the name begins with "cluster"."""
    return "" if name.lower().startswith("cluster") else word
