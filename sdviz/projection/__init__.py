"""Layouts of feature space by PCA, t-SNE and UMAP: aligned over epochs, measured, kept in files."""

from .files import SUFFIX, read_layouts, write_layouts
from .layouts import METHODS, Layouts, LayoutSettings, align, compute_layouts, fewest_points
from .quality import trustworthiness
from .regions import inside, project

__all__ = [
    "METHODS",
    "SUFFIX",
    "LayoutSettings",
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
