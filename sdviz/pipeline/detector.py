"""Stage `detector`: trains f, g_bin, g_in and g_out by Eq. 4-5.

Reads the backbone, pseudo_labels/ and outliers/; writes detector.safetensors, as training left it, and, in
epoch-*.safetensors, what each epoch changed.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .. import data
from ..config.nodes import DetectorConfig
from ..config.tree import RunConfig
from ..detection.feature_quality import effective_rank, knn_accuracy
from ..detection.interpolation import interpolated
from ..detection.training import epoch_steps, train_detector
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from ..nn.feature_cache import fresh_features, kept_features
from ..nn.loop import TrainingDiverged
from . import backbone, outliers
from .backbone import load_backbone
from .outliers import outlier_labels, read_outliers
from .shared.labels import read_cluster_names, source_labels
from .shared.shards import reencode
from .workspace import (
    Metrics,
    Progress,
    Settings,
    Stage,
    Workspace,
    has_detector,
    write_network,
)

log = logging.getLogger(__name__)
# ID images whose features are looked at before training and after each epoch
MAX_WATCHED = 2000
QUALITY_NAMES = {
    "effective_rank": "effective rank of the features",
    "knn_accuracy": "20-NN accuracy of clusters",
    "knn_class_accuracy": "20-NN accuracy of classes",
}


def depends_on(config: RunConfig) -> Settings:
    """Outliers, backbone and `detector` without `interpolation`, which is chosen after training."""
    own = config.model_dump(mode="json", include={"detector"}, exclude={"detector": {"interpolation"}})
    return outliers.settings(config) | backbone.depends_on(config) | own


def make(work: Workspace) -> Metrics | None:
    """Trains the detector."""
    config, out = work.config.detector, work.stage_folder("detector")
    assert config is not None
    outliers = read_outliers(work, "wrong")
    rebuilt = read_outliers(work, "right")[: len(work.sources)] if config.reconstructed_id else None
    epochs_folder = out if config.snapshot_ids else None
    if not train(work, "detector", out, config, outliers, rebuilt, epochs_folder):
        return None
    return {"detector_epochs": config.epochs, "outliers": len(outliers)}


def train(
    work: Workspace,
    stage: str,
    out: Path,
    config: DetectorConfig,
    outliers: np.ndarray,
    rebuilt: np.ndarray | None,
    epochs_folder: Path | None = None,
    training: str = "",
) -> bool:
    """Trains a detector on `work.sources` and their outliers uint8 (M,H,W,3); False if it was stopped.

    Args:
        out: The folder of the state to resume from, and of the network: detector.safetensors.
        rebuilt: The sources, denoised under their right labels, uint8 (N,H,W,3).
        epochs_folder: Where the weights after each epoch are kept.
        training: Its name, if the stage has several.
    """
    labels, n_clusters = source_labels(work), len(read_cluster_names(work))
    torch.manual_seed(config.seed)
    detector = Detector(load_backbone(work), n_clusters, config.zero_heads, config.unit_features)
    steps, state_path = epoch_steps(len(labels), config), out / "state.pt"
    execution = work.execution(stage, state_path, config.epochs * steps, training=training)
    images, y = work.sources.images, outlier_labels(work)[: len(outliers)]
    if config.jpeg_both_sides:
        images = reencode(images, work.config.outliers.jpeg)

    rows = data.permutation(len(labels), 1)[:MAX_WATCHED]
    watched = work.sources.take(rows)

    def watch(epoch: int, features: np.ndarray) -> None:
        if not np.isfinite(features).all():
            raise TrainingDiverged(
                f"the detector's features became NaN or infinite in epoch {epoch} of {config.epochs}:"
                f" try a learning rate below {config.optimizer.learning_rate:g}"
            )
        values = feature_quality(features, labels[rows], watched.labels)
        step, total = epoch * steps, config.epochs * steps
        work.on_progress(Progress(stage, step, total, step / total, None, values, training))
        found = ", ".join(f"{QUALITY_NAMES[key]} {value:.4g}" for key, value in values.items())
        log.info("%s, epoch %d of %d: %s", training or stage, epoch, config.epochs, found)

    def after_epoch(epoch: int) -> None:
        watch(epoch, fresh_features(detector.encoder, watched.images, work.config.device))

    if not state_path.exists():
        watch(0, kept_features(detector.encoder, watched.images, work.config.device))
    done = train_detector(
        detector, images, labels, outliers, y, config, execution, rebuilt, epochs_folder, after_epoch
    )
    if done:
        write_network(detector, out / "detector.safetensors")
    return done


def feature_quality(features: np.ndarray, clusters: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Effective rank and 20-NN accuracies of features (N,D), by their keys in stats.jsonl.

    Args:
        clusters: int64 (N,), y~.
        classes: int64 (N,), -1 for unknown; without known ones that differ from the clusters, there is no
            accuracy of classes.
    """
    found = {"effective_rank": effective_rank(features), "knn_accuracy": knn_accuracy(features, clusters)}
    known = classes >= 0
    if known.sum() > 1 and not np.array_equal(clusters, classes):
        found["knn_class_accuracy"] = knn_accuracy(features[known], classes[known])
    return found


def load_detector(work: Workspace, folder: str = "detector", share: float | None = None) -> Detector:
    """The network that `train` wrote to a folder of the run, in eval mode on the CPU.

    Args:
        share: Of the trained weights in the encoder's; None takes `detector.interpolation`.
    """
    config = work.config.detector
    assert config is not None
    encoder, n_clusters = Encoder(**load_backbone(work).config), len(read_cluster_names(work))
    detector = Detector(encoder, n_clusters, unit_features=config.unit_features)
    detector.load_state_dict(load_file(work.folder / folder / "detector.safetensors"))
    if share is not None:
        config = config.model_copy(update={"interpolation": share})
    detector.encoder = scoring_encoder(work, detector.encoder, config)
    return detector.eval()


def scoring_encoder(work: Workspace, trained: Encoder, config: DetectorConfig) -> Encoder:
    """The encoder with the share of the trained weights that scores; its frozen blocks are frozen."""
    encoder = interpolated(load_backbone(work), trained, config.interpolation)
    encoder.freeze(config.frozen_blocks)
    return encoder


STAGE = Stage(
    make,
    depends_on,
    title="Detector",
    is_wanted=has_detector,
    memory_settings=("detector.batch_size",),
)
