"""Stage `evaluation`: scores every image and writes the report.

Reads features/, baseline_scores/ and the clusterer; writes scores.parquet, report.json (see
docs/report.md) and, with other methods, baselines.parquet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file as load_arrays

from ..config.tree import RunConfig
from ..data import ImageSet
from ..evaluation import (
    FID,
    Evaluation,
    FeatureSet,
    baseline_report,
    baseline_table,
    cluster_report,
    control_report,
    distance_name,
    evaluate,
    frechet_distances,
    id_accuracy,
    inception_features,
    interpolation_report,
    make_report,
)
from ..evaluation.sets import HEADS
from ..files import write_atomically
from ..nn.feature_cache import kept_predictions
from ..table_files import write_parquet
from ..text import tree_hash
from . import baseline_scores, features
from .backbone import backbone_config
from .clusterer import load_clusterer
from .features import interpolation_folder
from .outliers import read_outliers
from .planning.check import read_check
from .shared.labels import read_cluster_names, read_labels
from .shared.sets import NamedSet, evaluation_sets
from .workspace import (
    Metrics,
    Progress,
    Settings,
    Stage,
    Workspace,
    branches,
    has_detector,
)


def depends_on(config: RunConfig) -> Settings:
    """The settings of stages `features` and `baseline_scores`, and `evaluation`."""
    return features.depends_on(config) | baseline_scores.depends_on(config) | branches(config, "evaluation")


def make(work: Workspace) -> Metrics | None:
    """Scores every image by our method, the controls and the other methods."""
    config, out = work.config.evaluation, work.stage_folder("evaluation")
    sets = list(evaluation_sets(work))

    # 1. our method, and the controls on the same images
    method = _measure(work, sets, work.folder / "features")
    controls: dict[str, Any] = {}
    for i, control in enumerate(config.controls):
        if work.should_stop():
            return None
        other = _measure(work, sets, work.folder / "features" / control)
        controls[control] = control_report(method, other, config.bootstrap, config.seed)
        done = (i + 1) / (len(config.controls) + 1)
        work.on_progress(Progress("evaluation", i + 1, len(config.controls) + 1, done, None, {}))

    # 2. the other methods, and weights between those before and after training
    others = baseline_scores.read_scores(work)
    curve = {}
    for share in config.interpolation:
        if work.should_stop():
            return None
        folder = interpolation_folder(work.config, share)
        one = _measure(work, sets, work.folder / "features" / folder) if folder else method
        curve[f"{share:g}"] = interpolation_report(one)

    # 3. the report: clusters, heads, distances of distributions
    labels, n_clusters = read_labels(work), len(read_cluster_names(work))
    test = sets[0].images
    clusters, _ = kept_predictions(load_clusterer(work), test.images, work.config.device)
    g_in = load_arrays(work.folder / "features" / "ood_features.safetensors")["test.g_in"]
    report = make_report(
        method.report,
        controls,
        bootstrap=config.bootstrap,
        bootstrap_seed=config.seed,
        seeds=_seeds(work.config),
        config_sha256=tree_hash(work.config.model_dump(mode="json")),
        id_accuracy=id_accuracy(g_in, clusters, test.labels),
        clusters=cluster_report(labels, work.images.labels, n_clusters, work.config.labels.source),
        frechet=_frechet(work, test),
        interpolation=curve,
        baselines={one.key: baseline_report(method, one, config.bootstrap, config.seed) for one in others},
        overlap={
            "on_overlap": work.config.data.on_overlap,
            "copies": work.copies,
            "sets": {one.key: dict(one.overlap) for one in sets if one.overlap},
        },
        images=read_check(work.folder),
        tuning=config.tuning.model_dump(mode="json") if config.tuning is not None else None,
    )
    write_parquet(method.scores, out / "scores.parquet")
    if others:
        write_parquet(baseline_table(method, others), out / "baselines.parquet")
    write_atomically(out / "report.json", json.dumps(report, indent=1) + "\n")
    means = {role: tree["both"]["auroc"] for role, tree in report["means"].items()}
    if "validation" in means:
        work.on_progress(Progress("evaluation", 1, 1, 1.0, 0.0, {"validation_auroc": means["validation"]}))
    return {f"auroc_{role}": value for role, value in means.items()}


def _measure(work: Workspace, sets: list[NamedSet], folder: Path) -> Evaluation:
    """Scores by Eq. 6 from the features in a folder."""
    config = work.config.evaluation
    banks = load_arrays(folder / "features.safetensors")
    found = load_arrays(folder / "ood_features.safetensors")
    scored = []
    for one in sets:
        images, queries = one.images, found[one.key].astype(np.float32)
        heads = {head: found[f"{one.key}.{head}"] for head in HEADS} if f"{one.key}.g_bin" in found else None
        scored.append(FeatureSet(one.key, one.role, images.split, queries, images.ids, images.labels, heads))
    id_features, outliers = (banks[f"{bank}_features"].astype(np.float32) for bank in ("id", "outlier"))
    return evaluate(
        id_features,
        work.sources.ids,
        outliers if len(outliers) else None,
        scored,
        config.score,
        config.bootstrap,
        config.seed,
        work.config.device,
    )


def _seeds(config: RunConfig) -> dict[str, int]:
    keys = ("labels", "diffusion", "outliers", "evaluation", "encoder", "detector")
    parts = {key: getattr(config, key) for key in keys}
    return {"run": config.seed} | {key: part.seed for key, part in parts.items() if part is not None}


def _frechet(work: Workspace, test: ImageSet) -> dict[str, dict[str, Any]]:
    """Frechet distances on the backbone's features, and on Inception's if its weights are given."""
    plain = work.folder / "features" / "no_training"
    banks = load_arrays(plain / "features.safetensors")
    rebuilt_file = plain / "reconstructions.safetensors"
    rebuilt = load_arrays(rebuilt_file)["features"] if rebuilt_file.is_file() else None
    n, m = len(banks["id_features"]), len(banks["outlier_features"])
    found = {
        distance_name(_encoder_name(work)): frechet_distances(
            banks["id_features"].astype(np.float64),
            banks["outlier_features"].astype(np.float64),
            None if rebuilt is None else rebuilt.astype(np.float64),
            load_arrays(plain / "ood_features.safetensors")["test"].astype(np.float64),
            np.arange(m) % n,
        )
    }
    weights = work.config.evaluation.inception_weights
    if weights is not None:

        def inception(images: np.ndarray) -> np.ndarray:
            return inception_features(images, weights, work.config.device)

        found[FID] = frechet_distances(
            inception(work.sources.images),
            inception(read_outliers(work, "wrong")),
            inception(read_outliers(work, "right")) if rebuilt is not None else None,
            inception(test.images),
            np.arange(m) % n,
        )
    return found


def _encoder_name(work: Workspace) -> str:
    config = backbone_config(work.config)
    trained = "SimCLR " if config.simclr else "distilled " if config.distillation else ""
    if not trained and config.pretraining:
        trained = f"{config.pretraining.data} "
    return f"{trained}{config.arch.removeprefix('timm:')}"


STAGE = Stage(
    make,
    depends_on,
    title="Evaluation",
    is_wanted=has_detector,
    reads_sets=True,
    memory_settings=("evaluation.limit",),
)
