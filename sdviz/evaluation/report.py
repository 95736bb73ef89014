"""The tree of report.json, the results of a run. docs/report.md lists its keys with these descriptions."""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, ValidationError

from .. import __version__
from ..config.nodes import Node
from ..scan.metrics import agreement
from ..text import LineError

REPORT_VERSION = 1
OODRole: TypeAlias = Literal["near", "far", "validation", "sd"]
VERSIONED = ("torch", "numpy", "scikit-learn")


class ReportError(LineError):
    """A report cannot be read, or reports cannot be compared; the message is one line."""


def _by(*names: str, description: str, default: Any = ...) -> Any:  # noqa: ANN401
    """A field that is a dict; `names` says what its keys stand for, the outermost first."""
    return Field(default, description=description, json_schema_extra={"by": list(names)})


class Bank(Node):
    """The reference images."""

    n_id: int = Field(ge=1, description="ID images")
    n_outliers: int = Field(ge=0, description="outliers")
    ratio: float = Field(ge=0, description="outliers / ID images; votes depend on it, 1 is even")
    feature_dim: int = Field(ge=1, description="D, the length of a feature vector")


class ScoreSettings(Node):
    """The settings of Eq. 6."""

    k: int = Field(ge=1, description="nearest neighbours, in the ID bank and in both banks together")
    alpha: float = Field(ge=0, description="weight of a vote")
    normalize: bool = Field(description="whether features are scaled to unit length")


class IdSet(Node):
    """The held-out ID images that every OOD set is measured against."""

    name: str = Field(description="their name in the table of scores")
    split: str = Field(description="their split")
    n: int = Field(ge=1, description="images")


class ModeMetrics(Node):
    """The metrics of one score on one OOD set. All are shares, 0..1."""

    auroc: float = Field(description="area under the ROC curve, OOD positive, ties count half")
    auroc_interval: tuple[float, float] | None = Field(
        description="its 95 % bootstrap interval [low, high]; null if none was asked for"
    )
    fpr95_id_recall: float = Field(
        description="share of OOD accepted while at least 95 % of ID is accepted (ODIN, kNN-OOD)"
    )
    fpr95_ood_recall: float = Field(
        description="share of ID flagged while at least 95 % of OOD is flagged (OpenOOD)"
    )
    aupr_in: float = Field(description="average precision, ID positive")
    aupr_out: float = Field(description="average precision, OOD positive")


class MeanMetrics(Node):
    """Means over the sets of one role; all sets have the same weight."""

    n_sets: int = Field(ge=1, description="how many sets")
    auroc: float = Field(description="mean")
    fpr95_id_recall: float = Field(description="mean")
    fpr95_ood_recall: float = Field(description="mean")
    aupr_in: float = Field(description="mean")
    aupr_out: float = Field(description="mean")


class SetResult(Node):
    """One OOD set."""

    role: OODRole = Field(
        description="near, far, validation (for choosing settings) or sd (SD outliers of held-out ID images)"
    )
    split: str = Field(description="its split")
    n: int = Field(ge=1, description="images")
    modes: dict[str, ModeMetrics] = _by(
        "mode", description="by distance only, votes only, both, and g_bin alone"
    )


class Measured(Node):
    """The results of one detector or control."""

    bank: Bank = Field(description="the reference images")
    score: ScoreSettings = Field(description="the settings of Eq. 6")
    id_set: IdSet = Field(description="the held-out ID images")
    thresholds: dict[str, float] = _by(
        "mode", description="the score that at least 95 % of held-out ID images do not exceed; above is OOD"
    )
    results: dict[str, SetResult] = _by("set", description="each OOD set against the held-out ID images")
    means: dict[str, dict[str, MeanMetrics]] = _by(
        "role", "mode", description="means over the sets of a role; a role without sets is absent"
    )


class Difference(Node):
    """The method's AUROC minus a control's on the same images."""

    auroc: float = Field(description="the difference; above 0 the method is better")
    interval: tuple[float, float] | None = Field(
        description="its paired 95 % bootstrap interval [low, high]; null if none was asked for"
    )


class Control(Measured):
    """The results of a control, which is the method with one ingredient removed, and the differences."""

    differences: dict[str, dict[str, Difference]] = _by(
        "set", "mode", description="the method minus this control"
    )


class Trial(Node):
    """Settings that were tried, and how well they did on the images that settings are chosen on."""

    settings: dict[str, str | bool | int | float] = _by("setting", description="what was tried")
    value: float | None = Field(
        description="mean AUROC by `tuning.criterion`, 0..1; null if the training diverged"
    )


class Tuning(Node):
    """How settings were chosen, for every method and ours alike. No image of a test set was read."""

    trials: int = Field(ge=1, description="the most that any method had; the first has its own settings")
    criterion: Literal["validation", "left_out"] = Field(
        description="validation: held-out ID images against the validation sets; left_out: against held-out"
        " images of two clusters that the trial was not fitted on"
    )
    left_out_pairs: int = Field(ge=1, description="how often two clusters were left out, for left_out")
    holdout: float = Field(description="share of the ID images that trials were measured on, not fitted on")
    frozen_blocks: tuple[int, ...] = Field(
        description="numbers of first blocks that are not trained, tried for every method that trains; below 0"
        " from the last"
    )
    seed: int = Field(description="of the trials and of the held-out images")


class BaselineResult(Node):
    """The results of another method on the same images; it has one score only."""

    title: str = Field(description="its name for readers")
    settings: dict[str, str | bool | int | float] = _by(
        "setting",
        description="what configuration or trials set; other settings are the method's own",
    )
    trials: tuple[Trial, ...] = Field(
        (), description="of a tuned method, in order; `settings` are those of the best"
    )
    results: dict[str, ModeMetrics] = _by("set", description="each OOD set against the held-out ID images")
    means: dict[str, MeanMetrics] = _by("role", description="means over the sets of a role")


class Interpolated(Node):
    """The results by both terms of Eq. 6 with the weights (1 - a) theta_0 + a theta_1 of the encoder."""

    results: dict[str, ModeMetrics] = _by("set", description="each OOD set against the held-out ID images")
    means: dict[str, MeanMetrics] = _by("role", description="means over the sets of a role")


class IdAccuracy(Node):
    """How well g_in classifies held-out ID images."""

    clusters: float = Field(description="share whose largest g_in logit is their pseudo-label, 0..1")
    ground_truth: float | None = Field(
        description="share with the right class, clusters matched to classes one to one (Hungarian);"
        " null if no class is known"
    )
    n: int = Field(ge=1, description="images")


class Clusters(Node):
    """The pseudo-labels against the true classes, for information only."""

    source: str = Field(description="scan, kmeans, turtle, temi, ground_truth or file")
    n_clusters: int = Field(ge=1, description="C")
    n: int = Field(ge=0, description="images with a known class; without any, the next three are null")
    accuracy: float | None = Field(description="clusters matched to classes one to one (Hungarian), 0..1")
    nmi: float | None = Field(description="normalised mutual information, 0..1")
    ari: float | None = Field(description="adjusted Rand index, 0 by chance")


class Frechet(Node):
    """Frechet distances between sets of features; smaller means more alike."""

    n: dict[str, int] = _by("images", description="images in train, outliers, reconstructions and test")
    outliers_to_train: float = Field(description="small by construction: at S = 0 they are the same images")
    reconstructions_to_train: float | None = Field(
        description="the same noise under the right label; null if none were made"
    )
    test_to_train: float | None = Field(description="two samples of one distribution; null without a test set")
    outliers_to_test: float | None = Field(description="to images that no outlier was made from")
    outliers_to_source: float | None = Field(
        description="mean Euclidean distance of an outlier's features to its own source's"
    )


class Bootstrap(Node):
    """How the intervals were drawn."""

    n: int = Field(ge=0, description="resamples; 0 for no intervals")
    seed: int = Field(description="their seed")


class Overlap(Node):
    """Images with the pixels of another image, at the run's size."""

    on_overlap: Literal["drop", "refuse", "keep"] = Field(
        description="the setting `data.on_overlap`: by keep, these images were scored, too; else left out"
    )
    copies: int = Field(ge=0, description="ID images that equal another ID image on the same side")
    sets: dict[str, dict[str, int]] = _by(
        "set",
        "other",
        description="images of a set that equal one of another: of train, test, or a validation set",
    )


class ImagesFound(Node):
    """What was in the training set, as `python -m sdviz check --json` prints it."""

    pictures: int = Field(ge=0, description="before any were held out, copies counted")
    classes: dict[str, int] = _by("class", description="its pictures")
    splits: dict[str, int] = _by("split", description="its pictures")
    passed_over: dict[str, int] = _by("suffix or folder", description="files that are no pictures")
    unreadable: tuple[str, ...] = Field(description="files and folders that could not be read")
    exact_copies: int = Field(ge=0, description="pictures with the pixels of an earlier one")
    near_copies: int = Field(ge=0, description="other pictures that look like an earlier one")
    overlap: dict[str, int] = _by("set", description="pictures of an OOD set that are also among these")
    value_range: str = Field(description="the values that became black and white")
    warnings: tuple[str, ...] = Field(description="lines on what may be wrong with them")


class Report(Measured):
    """All of report.json."""

    format_version: Literal[1] = Field(description=f"version of this tree, {REPORT_VERSION}")
    id_accuracy: IdAccuracy | None = Field(description="of g_in on held-out ID images; null without a detector")
    clusters: Clusters | None = Field(description="the pseudo-labels against the true classes")
    controls: dict[str, Control] = _by(
        "control",
        description="no_training (plain features), right_label, noise, ...: the method with one ingredient"
        " removed",
    )
    baselines: dict[str, BaselineResult] = _by(
        "method",
        default={},
        description="other methods on the same images, clusters and networks; +tuned has the settings of the"
        " best trial, ours+tuned is our own method",
    )
    interpolation: dict[str, Interpolated] = _by(
        "share",
        default={},
        description="both terms of Eq. 6 with an encoder between the one before training (share 0) and the"
        " trained one (share 1)",
    )
    tuning: Tuning | None = Field(None, description="how those settings were chosen; null without trials")
    frechet: dict[str, Frechet] = _by(
        "distance", description='"FD (encoder name)"; "FID" on Inception features where weights were given'
    )
    overlap: Overlap | None = Field(
        None, description="images that are in two sets, pixel by pixel; null if they were not counted"
    )
    images: ImagesFound | None = Field(
        None, description="what was in the training set before the run; null if it was not checked"
    )
    bootstrap: Bootstrap = Field(description="how the intervals were computed")
    seeds: dict[str, int] = _by("stage", description="the seed of each stage; run is the run's own")
    versions: dict[str, str] = _by("package", description="software")
    config_sha256: str = Field(description="of the resolved configuration")


def make_report(
    method: Mapping[str, Any],
    controls: Mapping[str, Mapping[str, Any]],
    *,
    bootstrap: int,
    bootstrap_seed: int,
    seeds: Mapping[str, int],
    config_sha256: str,
    id_accuracy: Mapping[str, Any] | None = None,
    clusters: Mapping[str, Any] | None = None,
    frechet: Mapping[str, Mapping[str, Any]] | None = None,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
    interpolation: Mapping[str, Mapping[str, Any]] | None = None,
    overlap: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds and checks the tree of report.json.

    Args:
        method: `Evaluation.report` of the detector.
        controls: By name, of `control_report`.
        seeds: By stage; "run" is the run's own.
        config_sha256: Of the resolved configuration.
        id_accuracy: Of `id_accuracy`.
        clusters: Of `cluster_report`.
        frechet: By name, of `frechet_distances`.
        baselines: By method, of `baseline_report`.
        interpolation: By share of the trained weights, of `interpolation_report`.
        overlap: The tree `Overlap`.
        images: The tree `ImagesFound`.
        tuning: The tree `Tuning`.

    Raises:
        ReportError: A value is missing, unknown, of a wrong type, or not finite.
    """
    packages = {name: metadata.version(name) for name in VERSIONED}
    tree = {
        "format_version": REPORT_VERSION,
        **method,
        "id_accuracy": id_accuracy,
        "clusters": clusters,
        "controls": dict(controls),
        "baselines": dict(baselines or {}),
        "interpolation": dict(interpolation or {}),
        "tuning": tuning,
        "frechet": dict(frechet or {}),
        "overlap": overlap,
        "images": images,
        "bootstrap": {"n": bootstrap, "seed": bootstrap_seed},
        "seeds": dict(seeds),
        "versions": {"sdviz": __version__, "python": platform.python_version(), **packages},
        "config_sha256": config_sha256,
    }
    return parse_report(json.dumps(tree), "the report").model_dump(mode="json")


def parse_report(text: str | bytes, where: str) -> Report:
    """Parses a report; `where` is its name in errors. Raises ReportError: not JSON, or another tree."""
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ReportError(f"{where}: {key + ': ' if key else ''}{first['msg']}") from error


def read_report(path: str | Path) -> Report:
    """Reads a report.json. Raises ReportError: no such file, or another format."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path}: no report there: {error.strerror}") from error
    return parse_report(text, str(path))


def id_accuracy(g_in: np.ndarray, pseudo_labels: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Measures how well g_in classifies held-out ID images: the tree `IdAccuracy`.

    Args:
        g_in: float (N,C), logits.
        pseudo_labels: int64 (N,), 0..C-1.
        classes: int64 (N,), true classes, -1 for unknown.

    Raises:
        ValueError: Columns that do not fit, or no images.
    """
    if g_in.ndim != 2 or len(g_in) == 0 or not len(g_in) == len(pseudo_labels) == len(classes):
        raise ValueError(
            f"g_in {g_in.shape}, pseudo_labels {pseudo_labels.shape} and classes {classes.shape} do not fit"
        )
    named = g_in.argmax(1)
    truth = None
    if (classes >= 0).any():
        truth = agreement(named, classes, g_in.shape[1], int(classes.max()) + 1).accuracy
    return {"clusters": float((named == pseudo_labels).mean()), "ground_truth": truth, "n": len(g_in)}


def cluster_report(clusters: np.ndarray, classes: np.ndarray, n_clusters: int, source: str) -> dict[str, Any]:
    """Compares pseudo-labels with true classes: the tree `Clusters`.

    Args:
        clusters: int64 (N,), 0..C-1.
        classes: int64 (N,), -1 for unknown.
        source: Method that made the pseudo-labels.

    Raises:
        ValueError: Columns of different length.
    """
    if clusters.shape != classes.shape:
        raise ValueError(f"clusters {clusters.shape} and classes {classes.shape} do not fit")
    known = int((classes >= 0).sum())
    found = agreement(clusters, classes, n_clusters, int(classes.max()) + 1) if known else None
    figures = {key: getattr(found, key, None) for key in ("accuracy", "nmi", "ari")}
    return {"source": source, "n_clusters": n_clusters, "n": known, **figures}
