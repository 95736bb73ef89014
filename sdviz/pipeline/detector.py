"""Stage `detector`: trains f, g_bin, g_in and g_out by Eq. 4-5.

Reads the backbone, pseudo_labels/, outliers/ and the sets; writes detector.safetensors and, in snapshots.*, the
features of a few images after each epoch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file

from .. import data
from ..config.nodes import DetectorConfig
from ..config.tree import RunConfig
from ..detection.training import epoch_steps, train_detector
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from . import backbone, outliers
from .backbone import load_backbone
from .outliers import outlier_ids, outlier_labels, read_outliers
from .shared import sets
from .shared.labels import read_cluster_names, source_labels
from .shared.sets import evaluation_sets
from .workspace import (
    Metrics,
    Settings,
    Stage,
    Workspace,
    branches,
    has_detector,
    write_arrays,
    write_network,
    write_table,
)


def depends_on(config: RunConfig) -> Settings:
    """Outliers, backbone, `detector`, and the sets in the snapshots."""
    inputs = outliers.settings(config) | backbone.depends_on(config)
    return inputs | branches(config, "detector") | sets.depends_on(config)


def make(work: Workspace) -> Metrics | None:
    """Trains the detector."""
    config, out = work.config.detector, work.stage_folder("detector")
    assert config is not None
    outliers = read_outliers(work, "wrong")
    rebuilt = read_outliers(work, "right")[: len(work.sources)] if config.reconstructed_id else None
    pictures, table = _snapshot_images(work, outliers, config.snapshot_ids)
    trained = train(work, "detector", out, config, outliers, rebuilt, pictures)
    if trained is None:
        return None
    detector, snapshots = trained
    write_network(detector, out / "detector.safetensors")
    if snapshots:
        half = {f"epoch_{i:03d}": one.astype(np.float16) for i, one in enumerate(snapshots)}
        write_arrays(out / "snapshots.safetensors", half)
        write_table(table, out / "snapshots.parquet")
    return {"detector_epochs": config.epochs, "outliers": len(outliers)}


def train(
    work: Workspace,
    stage: str,
    out: Path,
    config: DetectorConfig,
    outliers: np.ndarray,
    rebuilt: np.ndarray | None,
    pictures: np.ndarray | None,
) -> tuple[Detector, list[np.ndarray]] | None:
    """Trains a detector on `work.sources` and their outliers uint8 (M,H,W,3); None if it was stopped.

    Args:
        out: The folder of the state to resume from.
        rebuilt: The sources, denoised under their right labels, uint8 (N,H,W,3).
        pictures: Images whose features after each epoch are returned, too.
    """
    labels, n_clusters = source_labels(work), len(read_cluster_names(work))
    torch.manual_seed(config.seed)
    detector = Detector(load_backbone(work), n_clusters, config.zero_heads)
    execution = work.execution(stage, out / "state.pt", config.epochs * epoch_steps(len(labels), config))
    images, y = work.sources.images, outlier_labels(work)[: len(outliers)]
    snapshots = train_detector(detector, images, labels, outliers, y, config, execution, rebuilt, pictures)
    return None if snapshots is None else (detector.eval(), snapshots)


def load_detector(work: Workspace) -> Detector:
    """The network of stage `detector`, in eval mode on the CPU."""
    detector = Detector(Encoder(**load_backbone(work).config), len(read_cluster_names(work)))
    detector.load_state_dict(load_file(work.folder / "detector" / "detector.safetensors"))
    return detector.eval()


def _snapshot_images(work: Workspace, outliers: np.ndarray, n: int) -> tuple[np.ndarray | None, pa.Table]:
    """A few images of every set, for features after each epoch, and the table of their roles and ids."""
    if n == 0:
        return None, pa.table({"role": [], "id": []})
    sets = list(evaluation_sets(work))
    share = max(1, n // (len(sets) + 2))
    n_sources = len(work.sources)
    banks = [("train", work.sources.images, work.sources.ids, n_sources)]
    banks += [("outlier", outliers, outlier_ids(work), n_sources)]
    banks += [(one.key, one.images.images, one.images.ids, len(one.images)) for one in sets]
    pictures, roles, ids = [], [], []
    for role, images, names, n_rows in banks:
        rows = data.permutation(n_rows, 1)[:share]
        pictures.append(images[rows])
        roles += [role] * len(rows)
        ids += names[rows].tolist()
    return np.concatenate(pictures), pa.table({"role": roles, "id": ids})


STAGE = Stage(
    make,
    depends_on,
    title="Detector",
    is_wanted=has_detector,
    reads_sets=True,
    memory_settings=("detector.batch_size",),
)
