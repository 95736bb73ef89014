"""Stage `features`: computes the features of ID images, outliers and every evaluated set.

Reads detector/, the backbone, outliers/ and the sets; writes features.safetensors (ID images and outliers) and
ood_features.safetensors (sets) by the detector, and both by the backbone under no_training/.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from ..config.tree import RunConfig
from ..evaluation.sets import HEADS
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from ..nn.feature_cache import kept_features
from . import detector
from .backbone import load_backbone
from .detector import load_detector
from .outliers import kinds_needed, outlier_labels, read_outliers
from .shared.labels import source_labels
from .shared.sets import NamedSet, evaluation_sets
from .workspace import Metrics, PipelineError, Settings, Stage, Workspace, has_detector, write_arrays

log = logging.getLogger(__name__)


def depends_on(config: RunConfig) -> Settings:
    """The detector, and whether images were denoised under their right label."""
    return detector.depends_on(config) | {"kinds": kinds_needed(config)}


def make(work: Workspace) -> Metrics | None:
    """Writes the features by the detector and by the backbone."""
    out = work.stage_folder("features")
    detector, encoder = load_detector(work), load_backbone(work)
    outliers = read_outliers(work, "wrong")
    if work.should_stop():
        return None
    write_features(work, out, detector, outliers)
    plain = out / "no_training"
    plain.mkdir(exist_ok=True)
    if work.should_stop():
        return None
    write_features(work, plain, encoder, outliers)
    if "right" in kinds_needed(work.config):
        rebuilt = kept_features(encoder, read_outliers(work, "right"), work.config.device)
        write_arrays(plain / "reconstructions.safetensors", {"features": rebuilt.astype(np.float16)})
    return {"feature_dim": detector.feature_dim}


def write_features(work: Workspace, out: Path, network: Detector | Encoder, outliers: np.ndarray) -> None:
    """Writes features.safetensors and ood_features.safetensors; PipelineError for NaN or infinite features."""
    encoder = network.encoder if isinstance(network, Detector) else network

    def outputs(images: np.ndarray) -> list[np.ndarray]:
        features = kept_features(encoder, images, work.config.device)
        if not isinstance(network, Detector):
            return [features]
        with torch.no_grad():
            return [one.numpy() for one in network.to("cpu").heads(torch.tensor(features))]

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
    write_arrays(out / "ood_features.safetensors", sets)
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
