"""What clusters are called on the pages: the bundle's names, or those that people gave them here."""

from __future__ import annotations

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
    """Where given names are kept: beside the runs, by bundle, never in a bundle."""
    return runs.runs_root() / names.FILE


def with_known_classes() -> bool:
    """Whether the person has let pages compare clusters with the images' own classes, on Pseudo-labels."""
    return st.session_state.get(TRUTH, "") == "1"


def plain_names(bundle: Bundle) -> tuple[str, ...]:
    """The bundle's own names, of those by number the number alone: which class a cluster often is, goes."""
    return tuple(_NUMBERED.sub(r"\1", name) for name in bundle.class_names)


def usual_names(bundle: Bundle) -> tuple[str, ...]:
    """A name for each cluster, the bundle's own; without known classes none says which class it often is."""
    return bundle.class_names if with_known_classes() else plain_names(bundle)


def display_names(bundle: Bundle) -> tuple[str, ...]:
    """A name for each cluster, as given on the page Pseudo-labels, else its usual one."""
    return names.shown_names(usual_names(bundle), names.read_names(names_file(), bundle.hash))


def cluster_before(name: str, word: str = "cluster ") -> str:
    """What stands before a cluster's name in a sentence: nothing where that itself begins with "cluster"."""
    return "" if name.lower().startswith("cluster") else word
