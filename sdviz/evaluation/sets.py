"""Scores sets by Eq. 6 and measures how well distance, votes and both tell OOD from ID."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import torch

from ..config.tree import ScoreConfig
from ..detection import metrics
from ..detection.score import SDScore
from .reference import id_recall_threshold
from .report import Bank, IdSet, MeanMetrics, Measured, ModeMetrics, OODRole, ScoreSettings, SetResult

Role: TypeAlias = Literal["id", "near", "far", "validation", "sd"]

COLUMN_OF_MODE = {"distance": "distance", "votes": "votes", "both": "total"}
MODES = (*COLUMN_OF_MODE, "g_bin")
OOD_ROLES: tuple[OODRole, ...] = ("near", "far", "validation", "sd")
HEADS = ("g_bin", "g_in", "g_out")
SCORES_SCHEMA = pa.schema(
    [
        ("set", pa.string()),
        ("role", pa.string()),
        ("id", pa.string()),
        ("label", pa.int64()),
        ("distance", pa.float64()),
        ("votes", pa.int64()),
        ("total", pa.float64()),
        *((head, pa.list_(pa.float32())) for head in HEADS),
    ]
)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of one set of images, with its role."""

    name: str  # in reports and tables
    role: Role  # "id" for the held-out ID images
    split: str
    features: np.ndarray  # float32 (N,D)
    ids: np.ndarray  # str (N,), each once
    labels: np.ndarray  # int64 (N,), known classes, -1 for unknown
    # logits, float32: "g_bin" (N,2), "g_in" (N,C), "g_out" (N,C); None without a detector
    heads: Mapping[str, np.ndarray] | None = None

    def check(self, feature_dim: int) -> None:
        """Checks that the set can be scored. Raises ValueError: shapes, role, ids or values do not fit."""
        n = len(self.features)
        if self.role not in ("id", *OOD_ROLES):
            raise ValueError(f"{self.name}: role {self.role!r} is not one of id, {', '.join(OOD_ROLES)}")
        if n == 0:
            raise ValueError(f"{self.name}: holds no images")
        _check_features(self.name, self.features, feature_dim)
        if self.ids.shape != (n,) or self.labels.shape != (n,):
            raise ValueError(
                f"{self.name}: {n} features, but ids {self.ids.shape} and labels {self.labels.shape}"
            )
        if len(np.unique(self.ids)) != n:
            raise ValueError(f"{self.name}: an id occurs twice")
        if self.heads is not None and set(self.heads) != set(HEADS):
            raise ValueError(f"{self.name}: heads {', '.join(self.heads)} are not {', '.join(HEADS)}")
        for head, logits in (self.heads or {}).items():
            if logits.ndim != 2 or len(logits) != n:
                raise ValueError(f"{self.name}: {n} features, but {head} {logits.shape}")
            if not np.isfinite(logits).all():
                raise ValueError(f"{self.name}: {head} holds NaN or infinite values")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found."""

    report: dict[str, Any]  # the tree `sdviz.evaluation.report.Measured`
    scores: pa.Table  # `SCORES_SCHEMA`, one row per image; heads are null without a detector


def evaluate(
    id_features: np.ndarray,
    id_ids: np.ndarray,
    outlier_features: np.ndarray | None,
    sets: Sequence[FeatureSet],
    score: ScoreConfig,
    bootstrap: int,
    seed: int,
    device: str | torch.device = "auto",
) -> Evaluation:
    """Scores every image of every set by Eq. 6 and measures each OOD set against the held-out ID images.

    The mode "distance" is the first term of Eq. 6, "votes" the second, "both" their sum, and "g_bin" the head's
    log-odds of an outlier. Without outliers the mode "votes" is left out and "both" equals "distance"; without
    heads "g_bin" is left out. An image of the ID bank, known by its id, is not its own neighbour.

    Args:
        id_features: float32 (M,D), the ID bank.
        id_ids: str (M,).
        outlier_features: float32 (L,D), the outlier bank, or None.
        sets: Exactly one of role "id", and any number of others; names must differ.
        bootstrap: Resamples for the AUROC intervals, 0 for none.

    Raises:
        ValueError: Sets or banks that do not fit, features that are not finite, k above the size of the banks.
    """
    # 1. check the input
    _check_banks(id_features, id_ids, outlier_features)
    names = [one.name for one in sets]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]}: two sets have this name")
    held_out = [one for one in sets if one.role == "id"]
    if len(held_out) != 1:
        raise ValueError(f"{len(held_out)} sets have role id, it must be exactly one")
    for one in sets:
        one.check(id_features.shape[1])

    # 2. score by Eq. 6
    scorer = SDScore(k=score.k, alpha=score.alpha, normalize=score.normalize)
    scorer.fit(id_features, outlier_features, id_ids=id_ids, device=device)
    tables = {one.name: _score_rows(one, scorer) for one in sets}

    # 3. measure each OOD set against the held-out ID images
    absent = {"votes"} if outlier_features is None else set()
    absent |= {"g_bin"} if any(one.heads is None for one in sets) else set()
    scores = {
        mode: {name: mode_scores(table, mode) for name, table in tables.items()}
        for mode in MODES
        if mode not in absent
    }
    id_name = held_out[0].name
    results = {
        one.name: SetResult(
            role=one.role,
            split=one.split,
            n=len(one.features),
            modes={
                mode: measure(found[id_name], found[one.name], bootstrap, seed)
                for mode, found in scores.items()
            },
        )
        for one in sets
        if one.role != "id"
    }
    n_outliers = 0 if outlier_features is None else len(outlier_features)
    measured = Measured(
        bank=Bank(
            n_id=len(id_features),
            n_outliers=n_outliers,
            ratio=n_outliers / len(id_features),
            feature_dim=id_features.shape[1],
        ),
        score=ScoreSettings(k=score.k, alpha=score.alpha, normalize=score.normalize),
        id_set=IdSet(name=id_name, split=held_out[0].split, n=len(held_out[0].features)),
        thresholds={mode: id_recall_threshold(found[id_name]) for mode, found in scores.items()},
        results=results,
        means=mean_metrics(results),
    )
    return Evaluation(measured.model_dump(mode="json"), pa.concat_tables([tables[name] for name in names]))


def mode_scores(table: pa.Table, mode: str) -> np.ndarray:
    """The scores of a table's rows by one of `MODES`, float64 (N,), higher is more OOD."""
    if mode != "g_bin":
        return table[COLUMN_OF_MODE[mode]].to_numpy().astype(np.float64)
    logits = table["g_bin"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, 2)
    return outlier_log_odds(logits)


def outlier_log_odds(g_bin: np.ndarray) -> np.ndarray:
    """The log-odds of an outlier, float64 (N,), by the logits (N,2) of ID and outlier."""
    return g_bin[:, 1].astype(np.float64) - g_bin[:, 0]


def measure(id_scores: np.ndarray, ood_scores: np.ndarray, bootstrap: int, seed: int) -> ModeMetrics:
    """Computes all metrics of one OOD set against ID.

    Args:
        id_scores: (N,), higher is more OOD.
        ood_scores: (M,).
        bootstrap: Resamples for the AUROC interval, 0 for none.
    """
    interval = None
    if bootstrap:
        interval = metrics.bootstrap_interval(id_scores, ood_scores, bootstrap, seed)
    return ModeMetrics(
        auroc=metrics.auroc(id_scores, ood_scores),
        auroc_interval=interval,
        fpr95_id_recall=metrics.fpr_at_95_id_recall(id_scores, ood_scores),
        fpr95_ood_recall=metrics.fpr_at_95_ood_recall(id_scores, ood_scores),
        aupr_in=metrics.aupr_in(id_scores, ood_scores),
        aupr_out=metrics.aupr_out(id_scores, ood_scores),
    )


def mean_metrics(results: Mapping[str, SetResult]) -> dict[str, dict[str, MeanMetrics]]:
    """Averages the metrics over the sets of each role, by role and mode; all sets have the same weight."""
    means: dict[str, dict[str, MeanMetrics]] = {}
    roles = {name: one.role for name, one in results.items()}
    for mode in dict.fromkeys(mode for one in results.values() for mode in one.modes):
        by_set = {name: one.modes[mode] for name, one in results.items() if mode in one.modes}
        for role, mean in mean_over_sets(by_set, roles).items():
            means.setdefault(role, {})[mode] = mean
    return means


def mean_over_sets(results: Mapping[str, ModeMetrics], roles: Mapping[str, str]) -> dict[str, MeanMetrics]:
    """Averages the metrics of one score over the sets of each role; all sets have the same weight."""
    keys = [key for key in MeanMetrics.model_fields if key != "n_sets"]
    means: dict[str, MeanMetrics] = {}
    for role in OOD_ROLES:
        of_role = [one for name, one in results.items() if roles[name] == role]
        if of_role:
            values = {key: float(np.mean([getattr(one, key) for one in of_role])) for key in keys}
            means[role] = MeanMetrics(n_sets=len(of_role), **values)
    return means


def compare_auroc(
    scores_a: pa.Table, scores_b: pa.Table, name: str, mode: str, n: int, seed: int
) -> dict[str, Any]:
    """AUROC of method a minus that of method b on the same images, with its paired bootstrap interval.

    Args:
        scores_a: A table of `evaluate`.
        scores_b: Another one over the same images, in any order.
        name: The OOD set.
        mode: "distance", "votes", "both" or "g_bin".
        n: Resamples, 0 for no interval.

    Returns:
        {"auroc": difference a - b, "interval": [low, high] at 95 % or None}.

    Raises:
        ValueError: An unknown mode, no such set, or other images.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    (id_a, ood_a), (id_b, ood_b) = (_by_id(table, name, mode) for table in (scores_a, scores_b))
    for a, b, what in ((id_a, id_b, "ID images"), (ood_a, ood_b, name)):
        if a[0] != b[0]:
            raise ValueError(f"{what}: the two tables hold other images, they cannot be compared in pairs")
    columns = id_a[1], ood_a[1], id_b[1], ood_b[1]
    if not n:
        difference = metrics.auroc(*columns[:2]) - metrics.auroc(*columns[2:])
        return {"auroc": difference, "interval": None}
    difference, interval = metrics.paired_bootstrap_auroc_difference(*columns, n, seed)
    return {"auroc": difference, "interval": list(interval)}


def control_report(method: Evaluation, control: Evaluation, n: int, seed: int) -> dict[str, Any]:
    """Makes the tree `Control`: the control's metrics, and its difference to the method on each set.

    Modes that only one of them has are not compared.

    Args:
        method: Of the detector.
        control: Over the same images.
        n: Resamples of the paired intervals, 0 for none.

    Raises:
        ValueError: The two are not over the same images.
    """
    results, others = method.report["results"], control.report["results"]
    if results.keys() != others.keys():
        raise ValueError(f"the control knows the sets {', '.join(others)}, the method {', '.join(results)}")
    differences = {
        name: {
            mode: compare_auroc(method.scores, control.scores, name, mode, n, seed)
            for mode in result["modes"]
            if mode in others[name]["modes"]
        }
        for name, result in results.items()
    }
    return {**control.report, "differences": differences}


def interpolation_report(evaluation: Evaluation) -> dict[str, Any]:
    """Makes the tree `Interpolated` of what was found for one share of the trained weights: the mode "both"."""
    report = evaluation.report
    return {
        "results": {name: one["modes"]["both"] for name, one in report["results"].items()},
        "means": {role: modes["both"] for role, modes in report["means"].items()},
    }


def _check_features(name: str, features: np.ndarray, feature_dim: int) -> None:
    if features.ndim != 2 or features.shape[1] != feature_dim:
        raise ValueError(f"{name}: features {features.shape} are not (N,{feature_dim})")
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise ValueError(f"{name}: features hold NaN or infinite values, first in row {row}")


def _check_banks(id_features: np.ndarray, id_ids: np.ndarray, outlier_features: np.ndarray | None) -> None:
    if id_features.ndim != 2 or len(id_features) == 0:
        raise ValueError(f"the ID bank must hold features (M,D), M at least 1, not {id_features.shape}")
    _check_features("the ID bank", id_features, id_features.shape[1])
    if id_ids.shape != (len(id_features),):
        raise ValueError(f"the ID bank: {len(id_features)} features, but ids {id_ids.shape}")
    if outlier_features is not None:
        if len(outlier_features) == 0:
            raise ValueError("the outlier bank holds no features; None stands for no outliers")
        _check_features("the outlier bank", outlier_features, id_features.shape[1])


def _score_rows(one: FeatureSet, scorer: SDScore) -> pa.Table:
    """Scores one set: its rows of the table of scores."""
    scores = scorer.score(one.features, ids=one.ids)
    n = len(one.features)
    columns: list[Any] = [
        [one.name] * n,
        [one.role] * n,
        one.ids.astype(str).tolist(),
        one.labels.astype(np.int64),
        np.asarray(scores.distance, np.float64),
        np.asarray(scores.votes, np.int64),
        np.asarray(scores.total, np.float64),
    ]
    for head in HEADS:
        columns.append([None] * n if one.heads is None else list(one.heads[head].astype(np.float32)))
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, SCORES_SCHEMA, strict=True)],
        schema=SCORES_SCHEMA,
    )


Column = tuple[list[str], np.ndarray]


def _by_id(table: pa.Table, name: str, mode: str) -> tuple[Column, Column]:
    """(ids, scores by a mode) of the ID images and of one OOD set, each sorted by id."""
    found = []
    for field, wanted in (("role", "id"), ("set", name)):
        rows = np.flatnonzero(np.array(table[field].to_pylist(), dtype=object) == wanted)
        if len(rows) == 0:
            raise ValueError(f"the table of scores holds no image of {field} {wanted}")
        part = table.take(rows)
        if field == "set" and part["role"][0].as_py() == "id":
            raise ValueError(f"{name} is the ID set, it is not compared with itself")
        ids = np.array(part["id"].to_pylist())
        order = np.argsort(ids, kind="stable")
        found.append((ids[order].tolist(), mode_scores(part, mode)[order]))
    return found[0], found[1]
