"""What clusters are called on the pages: the bundle's names, or those that people gave them here."""

from __future__ import annotations

from pathlib import Path

from sdviz import runs
from sdviz.bundle import Bundle
from sdviz.evidence import names


def names_file() -> Path:
    """Where given names are kept: beside the runs, by bundle, never in a bundle."""
    return runs.runs_root() / names.FILE


def display_names(bundle: Bundle) -> tuple[str, ...]:
    """A name for each cluster, as given on the page Pseudo-labels, else the bundle's own."""
    return names.shown_names(bundle.class_names, names.read_names(names_file(), bundle.hash))


def cluster_before(name: str, word: str = "cluster ") -> str:
    """What stands before a cluster's name in a sentence: nothing where that itself begins with "cluster"."""
    return "" if name.lower().startswith("cluster") else word
