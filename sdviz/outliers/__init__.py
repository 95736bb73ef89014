"""Semantic-discrepant outliers: the recipe, Eq. 2's wrong labels, and partial diffusion."""

from .generate import (
    DiffusionModel,
    Outlier,
    OutlierBatch,
    OutlierRequest,
    SamplingDiverged,
    check_finite,
    check_images,
    generate_outliers,
    generate_together,
)
from .recipe import Recipe, manifest_csv, manifest_row, read_manifest
from .targets import check_labels, draw_target_labels

__all__ = [
    "DiffusionModel",
    "Outlier",
    "OutlierBatch",
    "OutlierRequest",
    "Recipe",
    "SamplingDiverged",
    "check_finite",
    "check_images",
    "check_labels",
    "draw_target_labels",
    "generate_outliers",
    "generate_together",
    "manifest_csv",
    "manifest_row",
    "read_manifest",
]
