"""Layouts of feature space: PCA, t-SNE and UMAP with a seed, aligned over epochs, measured and kept on disk."""

from .layouts import METHODS, Layouts, LayoutSettings, align, compute_layouts, fewest_points
from .quality import trustworthiness
from .regions import inside, project
from .store import SUFFIX, GivenUp, LayoutJob, LayoutStore, read_layouts, write_layouts

__all__ = [
    "METHODS",
    "SUFFIX",
    "GivenUp",
    "LayoutJob",
    "LayoutSettings",
    "LayoutStore",
    "Layouts",
    "align",
    "compute_layouts",
    "fewest_points",
    "inside",
    "project",
    "read_layouts",
    "trustworthiness",
    "write_layouts",
]
