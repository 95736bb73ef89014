"""Stage `features`: computes the features of ID images, outliers and every evaluated set.

Reads detector/, controls/, the backbone, outliers/ and the sets; writes features.safetensors (ID images and
outliers) and ood_features.safetensors (sets) by the detector, the same by each control in a folder of its name
and, in interpolation/<share>, by weights between those before and after training, and, in snapshots.*, the
features of a few images before training and after each epoch.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from .. import data
from ..config.tree import RunConfig
from ..detection.interpolation import interpolated
from ..detection.training import load_epoch
from ..evaluation.sets import HEADS
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from ..nn.feature_cache import kept_features
from ..table_files import write_parquet
from . import controls
from .backbone import load_backbone
from .controls import outliers_of, trained_controls
from .detector import load_detector
from .outliers import kinds_needed, outlier_ids, outlier_labels, read_outliers
from .shared import sets
from .shared.labels import source_labels
from .shared.sets import NamedSet, evaluation_sets
from .workspace import (
    Metrics,
    PipelineError,
    Settings,
    Stage,
    Workspace,
    has_detector,
    write_arrays,
)

log = logging.getLogger(__name__)


def depends_on(config: RunConfig) -> Settings:
    """The detectors and the shares of their weights, the sets, and whether right-label images were made."""
    own: Settings = {"kinds": kinds_needed(config)}
    if config.detector is not None:
        own["interpolation"] = [config.detector.interpolation, *config.evaluation.interpolation]
    return controls.depends_on(config) | sets.depends_on(config) | own


def make(work: Workspace) -> Metrics | None:
    """Writes the features by the detector, by its backbone and by each control."""
    out = work.stage_folder("features")
    detector, encoder = load_detector(work), load_backbone(work)
    outliers = read_outliers(work, "wrong")
    for name in ("", "no_training", *trained_controls(work.config)):
        if work.should_stop():
            return None
        network: Detector | Encoder
        if name in ("", "no_training"):
            network, bank = detector if name == "" else encoder, outliers
        else:
            network, bank = load_detector(work, f"controls/{name}"), outliers_of(work, name)
        (out / name).mkdir(exist_ok=True)
        write_features(work, out / name, network, bank)
    for share in work.config.evaluation.interpolation:
        folder = interpolation_folder(work.config, share)
        if folder in ("", "no_training"):
            continue
        if work.should_stop():
            return None
        (out / folder).mkdir(parents=True, exist_ok=True)
        write_features(work, out / folder, load_detector(work, share=share).encoder, outliers)
    if "right" in kinds_needed(work.config):
        rebuilt = kept_features(encoder, read_outliers(work, "right"), work.config.device)
        write_arrays(
            out / "no_training" / "reconstructions.safetensors", {"features": rebuilt.astype(np.float16)}
        )
    _write_snapshots(work, out, outliers)
    return {"feature_dim": detector.feature_dim}


def interpolation_folder(config: RunConfig, share: float) -> str:
    """The folder below features/ for a share of the trained weights; "" is that of the detector in use."""
    assert config.detector is not None
    if share == config.detector.interpolation:
        return ""
    return f"interpolation/{share:g}" if share else "no_training"


def _write_snapshots(work: Workspace, out: Path, outliers: np.ndarray) -> None:
    """Writes features of some images of all sets, before detector training and after each epoch."""
    config = work.config.detector
    if config is None or not config.snapshot_ids:
        return
    pictures, table = _snapshot_images(work, outliers, config.snapshot_ids)
    stack = {}
    for epoch in range(config.epochs + 1):
        encoder = load_backbone(work)
        if epoch:
            load_epoch(encoder, work.folder / "detector", epoch)
            encoder = interpolated(load_backbone(work), encoder, config.interpolation)
            encoder.freeze(config.frozen_blocks)
        features = kept_features(encoder, pictures, work.config.device)
        stack[f"epoch_{epoch:03d}"] = features.astype(np.float16)
    write_arrays(out / "snapshots.safetensors", stack)
    write_parquet(table, out / "snapshots.parquet")


def _snapshot_images(work: Workspace, outliers: np.ndarray, n: int) -> tuple[np.ndarray, pa.Table]:
    """About n images of all sets, and the table of their roles and ids."""
    named = list(evaluation_sets(work))
    share = max(1, n // (len(named) + 2))
    n_sources = len(work.sources)
    banks = [("train", work.sources.images, work.sources.ids, n_sources)]
    banks += [("outlier", outliers, outlier_ids(work), n_sources)]
    banks += [(one.key, one.images.images, one.images.ids, len(one.images)) for one in named]
    pictures, roles, ids = [], [], []
    for role, images, names, n_rows in banks:
        rows = data.permutation(n_rows, 1)[:share]
        pictures.append(images[rows])
        roles += [role] * len(rows)
        ids += names[rows].tolist()
    return np.concatenate(pictures), pa.table({"role": roles, "id": ids})


def write_features(work: Workspace, out: Path, network: Detector | Encoder, outliers: np.ndarray) -> None:
    """Writes features.safetensors and ood_features.safetensors; PipelineError for NaN or infinite features."""
    encoder = network.encoder if isinstance(network, Detector) else network

    def outputs(images: np.ndarray) -> list[np.ndarray]:
        features = kept_features(encoder, images, work.config.device)
        if not isinstance(network, Detector):
            return [features]
        with torch.no_grad():
            return [one.numpy() for one in network.to("cpu").heads(torch.tensor(features))]

    found: dict[str, np.ndarray] = {}
    for one in evaluation_sets(work):
        if isinstance(network, Detector):
            _warn_of_other_compression(work, one)
        features, *heads = outputs(one.images.images)
        found[one.key] = features.astype(np.float16)
        found |= {f"{one.key}.{name}": x.astype(np.float32) for name, x in zip(HEADS, heads, strict=False)}
    banks = {
        "id_features": outputs(work.sources.images)[0].astype(np.float16),
        "id_labels": source_labels(work),
        "outlier_features": outputs(outliers)[0].astype(np.float16),
        "outlier_labels": outlier_labels(work)[: len(outliers)],
    }
    for name, array in (found | banks).items():
        if not np.isfinite(array).all():
            kind = type(network).__name__.lower()
            raise PipelineError(f"the {kind} gives features that are NaN or infinite ({name}): train it again")
    write_arrays(out / "ood_features.safetensors", found)
    write_arrays(out / "features.safetensors", banks)


def _warn_of_other_compression(work: Workspace, one: NamedSet) -> None:
    ours, theirs = work.images.jpeg_share, one.images.jpeg_share
    if ours is not None and theirs is not None and (ours > 0.5) != (theirs > 0.5):
        history = {True: "went through JPEG", False: "did not go through JPEG"}
        log.warning(
            "%s %s and %s %s: what tells them apart may be compression, not semantics",
            *(work.images.name, history[ours > 0.5], one.key, history[theirs > 0.5]),
        )


STAGE = Stage(
    make,
    depends_on,
    title="Features",
    is_wanted=has_detector,
    reads_sets=True,
    memory_settings=("data.limit", "evaluation.limit"),
)
