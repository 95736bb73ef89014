"""Stage `detector`: trains f, g_bin, g_in and g_out by Eq. 4-5.

Reads the backbone, pseudo_labels/ and outliers/; writes detector.safetensors and, in epoch-*.safetensors, what
each epoch changed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ..config.nodes import DetectorConfig
from ..config.tree import RunConfig
from ..detection.training import epoch_steps, train_detector
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from . import backbone, outliers
from .backbone import load_backbone
from .outliers import outlier_labels, read_outliers
from .shared.labels import read_cluster_names, source_labels
from .workspace import (
    Metrics,
    Settings,
    Stage,
    Workspace,
    branches,
    has_detector,
    write_network,
)


def depends_on(config: RunConfig) -> Settings:
    """Outliers, backbone and `detector`."""
    return outliers.settings(config) | backbone.depends_on(config) | branches(config, "detector")


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
) -> bool:
    """Trains a detector on `work.sources` and their outliers uint8 (M,H,W,3); False if it was stopped.

    Args:
        out: The folder of the state to resume from, and of the network: detector.safetensors.
        rebuilt: The sources, denoised under their right labels, uint8 (N,H,W,3).
        epochs_folder: Where the weights after each epoch are kept.
    """
    labels, n_clusters = source_labels(work), len(read_cluster_names(work))
    torch.manual_seed(config.seed)
    detector = Detector(load_backbone(work), n_clusters, config.zero_heads)
    execution = work.execution(stage, out / "state.pt", config.epochs * epoch_steps(len(labels), config))
    images, y = work.sources.images, outlier_labels(work)[: len(outliers)]
    done = train_detector(detector, images, labels, outliers, y, config, execution, rebuilt, epochs_folder)
    if done:
        write_network(detector, out / "detector.safetensors")
    return done


def load_detector(work: Workspace, folder: str = "detector") -> Detector:
    """The network that `train` wrote to a folder of the run, in eval mode on the CPU."""
    detector = Detector(Encoder(**load_backbone(work).config), len(read_cluster_names(work)))
    detector.load_state_dict(load_file(work.folder / folder / "detector.safetensors"))
    return detector.eval()


STAGE = Stage(
    make,
    depends_on,
    title="Detector",
    is_wanted=has_detector,
    memory_settings=("detector.batch_size",),
)
