"""Measures a detector: scores over OOD sets, Frechet distances, report.json, and what an outlier changed."""

from .baselines import BaselineScores, baseline_report, baseline_table
from .frechet import (
    FID,
    InceptionError,
    check_inception,
    distance_name,
    frechet_distance,
    frechet_distances,
    inception_features,
)
from .image_change import background_psnr, dilate, share_changed
from .reference import OODReference, id_recall_threshold, ood_reference, score_table
from .report import Report, ReportError, cluster_report, id_accuracy, make_report, read_report
from .sets import Evaluation, FeatureSet, compare_auroc, control_report, evaluate, interpolation_report
from .tables import results_table

__all__ = [
    "FID",
    "BaselineScores",
    "Evaluation",
    "FeatureSet",
    "InceptionError",
    "OODReference",
    "Report",
    "ReportError",
    "background_psnr",
    "baseline_report",
    "baseline_table",
    "check_inception",
    "cluster_report",
    "compare_auroc",
    "control_report",
    "dilate",
    "distance_name",
    "evaluate",
    "frechet_distance",
    "frechet_distances",
    "id_accuracy",
    "id_recall_threshold",
    "inception_features",
    "interpolation_report",
    "make_report",
    "ood_reference",
    "read_report",
    "results_table",
    "score_table",
    "share_changed",
]
