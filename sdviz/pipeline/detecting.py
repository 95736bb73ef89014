"""The stages from outliers to figures: detector, features, controls, evaluation."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from .. import data
from ..config import DetectorConfig, RunConfig
from ..data import DataError, ImageSet
from ..detection.training import epoch_steps, train_detector
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
    make_report,
)
from ..nn.batches import encode, predict
from ..nn.detector import Detector, detector_outputs
from ..nn.encoder import Encoder
from .baselines import baseline_scores
from .clusters import backbone_config, load_backbone, load_clusterer
from .generation import kinds_needed, noised_images, outlier_ids, outlier_labels, read_outliers
from .sets import NamedSet, evaluation_sets
from .workspace import (
    Metrics,
    PipelineError,
    Progress,
    Workspace,
    read_cluster_names,
    read_labels,
    source_labels,
    tree_hash,
    write_atomically,
)

log = logging.getLogger(__name__)

HEADS = ("g_bin", "g_in", "g_out")
# the share of ID images that control right_label_as_id shows as the U-Net rebuilds them
AS_ID_SHARE = 0.5


# --- detector -----------------------------------------------------------------------------------------


def _detector_config(work: Workspace) -> DetectorConfig:
    if work.config.detector is None:
        raise DataError("this configuration has no detector")
    return work.config.detector


def make_detector(work: Workspace) -> Metrics | None:
    """Stage `detector`: f, g_bin, g_in, g_out by Eq. 4-5; and features of a few images after each epoch."""
    config = _detector_config(work)
    out = work.stage_folder("detector")
    outliers = read_outliers(work, "wrong")
    rebuilt = read_outliers(work, "right")[: len(work.sources)] if config.reconstructed_id else None
    pictures, table = _snapshot_images(work, outliers, config.snapshot_ids)
    trained = _train(work, "detector", out, config, outliers, rebuilt, pictures)
    if trained is None:
        return None
    detector, snapshots = trained
    save_file({k: v.contiguous() for k, v in detector.state_dict().items()}, out / "detector.safetensors")
    if snapshots:
        half = {f"epoch_{i:03d}": one.astype(np.float16) for i, one in enumerate(snapshots)}
        save_arrays(half, out / "snapshots.safetensors")
        pq.write_table(table, out / "snapshots.parquet")
    return {"detector_epochs": config.epochs, "outliers": len(outliers)}


def _train(
    work: Workspace,
    stage: str,
    out: Path,
    config: DetectorConfig,
    outliers: np.ndarray,
    rebuilt: np.ndarray | None,
    pictures: np.ndarray | None,
) -> tuple[Detector, list[np.ndarray]] | None:
    labels, n_clusters = source_labels(work), len(read_cluster_names(work))
    torch.manual_seed(config.seed)
    detector = Detector(load_backbone(work), n_clusters, config.zero_heads)
    n_steps = config.epochs * epoch_steps(len(labels), config)
    snapshots = train_detector(
        detector,
        work.sources.images,
        labels,
        outliers,
        outlier_labels(work)[: len(outliers)],
        config,
        rebuilt,
        pictures,
        out / "state.pt",
        work.config.device,
        work.reporter(stage, n_steps),
        work.should_stop,
    )
    return None if snapshots is None else (detector.eval(), snapshots)


def load_detector(work: Workspace) -> Detector:
    """The network that stage `detector` made, in eval mode on the CPU."""
    c = load_backbone(work).config
    detector = Detector(Encoder(**c), len(read_cluster_names(work)))
    detector.load_state_dict(load_file(work.folder / "detector" / "detector.safetensors"))
    return detector.eval()


def _snapshot_images(work: Workspace, outliers: np.ndarray, n: int) -> tuple[np.ndarray | None, pa.Table]:
    """A few images of every kind, to be seen moving through training; and which they are."""
    if n == 0:
        return None, pa.table({"role": [], "id": []})
    sets = list(evaluation_sets(work))
    share = max(1, n // (len(sets) + 2))
    pictures, roles, ids = [], [], []
    rows = data.permutation(len(work.sources), 1)[:share]
    for role, images, names in (
        ("train", work.sources.images[rows], work.sources.ids[rows]),
        ("outlier", outliers[rows], outlier_ids(work)[rows]),
    ):
        pictures.append(images)
        roles += [role] * len(images)
        ids += names.tolist()
    for one in sets:
        rows = data.permutation(len(one.images), 1)[:share]
        pictures.append(one.images.images[rows])
        roles += [one.key] * len(rows)
        ids += one.images.ids[rows].tolist()
    return np.concatenate(pictures), pa.table({"role": roles, "id": ids})


# --- features and controls ------------------------------------------------------------------------------


def make_features(work: Workspace) -> Metrics | None:
    """Stage `features`: of banks and sets, by the detector, and under no_training/ by its backbone."""
    out = work.stage_folder("features")
    detector, encoder = load_detector(work), load_backbone(work)
    outliers = read_outliers(work, "wrong")
    if work.should_stop():
        return None
    _write_features(work, out, detector, outliers)
    plain = out / "no_training"
    plain.mkdir(exist_ok=True)
    if work.should_stop():
        return None
    _write_features(work, plain, encoder, outliers)
    if "right" in kinds_needed(work.config):
        rebuilt = encode(encoder, read_outliers(work, "right"), work.config.device)
        _save_arrays(plain / "reconstructions.safetensors", {"features": rebuilt.astype(np.float16)})
    return {"feature_dim": detector.feature_dim}


def _write_features(work: Workspace, out: Path, network: Detector | Encoder, outliers: np.ndarray) -> None:
    """features.safetensors (the banks) and ood_features.safetensors (the sets, with a detector's heads).

    Raises:
        PipelineError: A feature is NaN, or too large for float16.
    """

    def outputs(images: np.ndarray) -> list[np.ndarray]:
        if isinstance(network, Detector):
            return list(detector_outputs(network, images, work.config.device))
        return [encode(network, images, work.config.device)]

    sets: dict[str, np.ndarray] = {}
    for one in evaluation_sets(work):
        if isinstance(network, Detector):
            _warn_of_other_compression(work, one)
        features, *heads = outputs(one.images.images)
        sets[one.key] = features.astype(np.float16)
        sets |= {f"{one.key}.{name}": x.astype(np.float32) for name, x in zip(HEADS, heads, strict=False)}
    banks = {
        "id_features": outputs(work.sources.images)[0].astype(np.float16),
        "id_labels": source_labels(work),
        "outlier_features": outputs(outliers)[0].astype(np.float16),
        "outlier_labels": outlier_labels(work)[: len(outliers)],
    }
    for name, array in (sets | banks).items():
        if not np.isfinite(array).all():
            kind = type(network).__name__.lower()
            raise PipelineError(f"the {kind} gives features that are NaN or infinite ({name}): train it again")
    _save_arrays(out / "ood_features.safetensors", sets)
    _save_arrays(out / "features.safetensors", banks)


def _warn_of_other_compression(work: Workspace, one: NamedSet) -> None:
    ours, theirs = work.images.jpeg_share, one.images.jpeg_share
    if ours is not None and theirs is not None and (ours > 0.5) != (theirs > 0.5):
        words = {True: "went through JPEG", False: "did not go through JPEG"}
        log.warning(
            "%s %s and %s %s: what tells them apart may be compression, not semantics",
            *(work.images.name, words[ours > 0.5], one.key, words[theirs > 0.5]),
        )


def make_controls(work: Workspace) -> Metrics | None:
    """Stage `controls`: the same recipe with one thing changed.

    right_label: "outliers" that were denoised under the right label; noise: of noise alone;
    right_label_as_id: half of the ID images are shown as the U-Net rebuilds them under the right label;
    lambda_zero: lambda of Eq. 4 is 0.
    """
    config = _detector_config(work)
    n = len(work.sources)
    for control in work.config.evaluation.controls:
        out = work.stage_folder("controls") / control
        if control == "no_training" or (out / "features.safetensors").is_file():
            continue
        out.mkdir(exist_ok=True)
        changed: dict[str, float] = {}
        if control == "right_label":
            # the same pictures cannot be ID as well
            outliers, changed = read_outliers(work, "right")[:n], {"reconstructed_id": 0.0}
        elif control == "right_label_as_id":
            outliers, changed = read_outliers(work, "wrong"), {"reconstructed_id": AS_ID_SHARE}
        elif control == "lambda_zero":
            outliers, changed = read_outliers(work, "wrong"), {"outlier_weight": 0.0}
        else:
            outliers = noised_images(work)
        config_here = config.model_copy(update=changed)
        rebuilt = read_outliers(work, "right")[:n] if config_here.reconstructed_id else None
        trained = _train(work, "controls", out, config_here, outliers, rebuilt, None)
        if trained is None:
            return None
        _write_features(work, out, trained[0], outliers)
        (out / "state.pt").unlink(missing_ok=True)
    return {}


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    partial = path.with_name(path.name + ".partial")
    save_arrays({key: np.ascontiguousarray(x) for key, x in arrays.items()}, partial)
    os.replace(partial, path)


# --- evaluation -----------------------------------------------------------------------------------------


def make_evaluation(work: Workspace) -> Metrics | None:
    """Stage `evaluation`: scores of every image, and the report over them.

    Writes evaluation/scores.parquet, baselines.parquet where there are other methods, and report.json, see
    docs/report.md.
    """
    config, out = work.config.evaluation, work.stage_folder("evaluation")
    sets = list(evaluation_sets(work))

    # 1. the method, and the controls on the same images
    method = _measure(work, sets, work.folder / "features")
    controls: dict[str, Any] = {}
    for i, control in enumerate(config.controls):
        if work.should_stop():
            return None
        folder = work.folder / ("features" if control == "no_training" else "controls") / control
        other = _measure(work, sets, folder)
        controls[control] = control_report(method, other, config.bootstrap, config.seed)
        done = (i + 1) / (len(config.controls) + 1)
        work.on_progress(Progress("evaluation", i + 1, len(config.controls) + 1, done, None, {}))

    # 2. the other methods
    beside = baseline_scores(work)

    # 3. clusters, heads, distances of distributions
    labels, n_clusters = read_labels(work), len(read_cluster_names(work))
    test = sets[0].images
    clusters, _ = predict(load_clusterer(work), test.images, work.config.device)
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
        baselines={one.key: baseline_report(method, one, config.bootstrap, config.seed) for one in beside},
    )
    _write_table(method.scores, out / "scores.parquet")
    if beside:
        _write_table(baseline_table(method, beside), out / "baselines.parquet")
    write_atomically(out / "report.json", json.dumps(report, indent=1) + "\n")
    means = {role: tree["both"]["auroc"] for role, tree in report["means"].items()}
    if "validation" in means:
        values = {"validation_auroc": means["validation"]}
        work.on_progress(Progress("evaluation", 1, 1, 1.0, 0.0, values))
    return {f"auroc_{role}": value for role, value in means.items()}


def _write_table(table: pa.Table, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def _measure(work: Workspace, sets: list[NamedSet], folder: Path) -> Evaluation:
    """Eq. 6 over the features in a folder."""
    config = work.config.evaluation
    banks = load_arrays(folder / "features.safetensors")
    found = load_arrays(folder / "ood_features.safetensors")
    scored = [
        FeatureSet(
            one.key,
            one.role,
            one.images.split,
            found[one.key].astype(np.float32),
            one.images.ids,
            one.images.labels,
            {head: found[f"{one.key}.{head}"] for head in HEADS} if f"{one.key}.g_bin" in found else None,
        )
        for one in sets
    ]
    return evaluate(
        banks["id_features"].astype(np.float32),
        work.sources.ids,
        banks["outlier_features"].astype(np.float32),
        scored,
        config.score,
        config.bootstrap,
        config.seed,
        work.config.device,
    )


def _seeds(config: RunConfig) -> dict[str, int]:
    seeds = {
        "run": config.seed,
        "labels": config.labels.seed,
        "diffusion": config.diffusion.seed,
        "outliers": config.outliers.seed,
        "evaluation": config.evaluation.seed,
    }
    if config.encoder is not None:
        seeds["encoder"] = config.encoder.seed
    if config.detector is not None:
        seeds["detector"] = config.detector.seed
    return seeds


def _frechet(work: Workspace, test: ImageSet) -> dict[str, dict[str, Any]]:
    """Distances on the encoder's features; on Inception's too where its weights are given."""
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
    trained = "SimCLR " if config.simclr else f"{config.pretraining.data} " if config.pretraining else ""
    return f"{trained}{config.arch.removeprefix('timm:')}"
