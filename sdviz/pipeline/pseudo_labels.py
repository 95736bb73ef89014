"""Stage `pseudo_labels`: gives each image its training label y~.

Reads encoder/; writes pseudo_labels/pseudo_labels.parquet and, with SCAN, clusterer.safetensors.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ..config.tree import RunConfig
from ..data import DataError
from ..detection.knn import nearest_others, unit_length
from ..nn.classifier import Classifier, ScanClassifier
from ..nn.encoder import build_encoder
from ..nn.feature_cache import kept_features, kept_predictions
from ..nn.unet import build_noise_predictor, n_parameters
from ..scan.clustering import kmeans_labels, train_scan, train_self_labels
from ..scan.metrics import agreement
from ..scan.temi import temi_labels
from ..scan.turtle import turtle_labels
from . import encoder
from .encoder import load_encoder, load_projection
from .shared.labels import GIVEN, given_labels, labelled_test, write_labels
from .workspace import Metrics, Progress, Settings, Stage, Workspace, branches, training_images, write_network

# self-labelling has collapsed if its evenness is below this share of SCAN's
COLLAPSED = 0.85

log = logging.getLogger(__name__)


def depends_on(config: RunConfig) -> Settings:
    """Images and `labels`; the encoder, too, where images are clustered."""
    own = training_images(config) | branches(config, "labels")
    return own if config.labels.source in GIVEN else own | encoder.depends_on(config)


def make(work: Workspace) -> Metrics | None:
    """Labels the training images, and measures how well the labels agree with known classes.

    Raises:
        DataError: Missing labels, fewer than two classes, or a class without an image.
        ValueError: An image size that the U-Net cannot take.
    """
    images, source = work.images, work.config.labels.source
    confidence = np.ones(len(images), np.float32)
    metrics: Metrics = {"images": len(images), "image_copies": work.copies}
    if source in GIVEN:
        labels, names = given_labels(work)
    else:
        found = _scan(work, metrics) if source == "scan" else _of_features(work, metrics)
        if found is None:
            return None
        labels, confidence = found
        names = tuple(f"cluster {i}" for i in range(labels.max() + 1))
        if len(names) < 2:
            raise DataError(f"{images.name}: all images are in one cluster: set another labels.seed or source")
        if empty := (work.config.labels.n_clusters or 0) - len(names):
            log.warning("%d of %d clusters are empty and left out", empty, work.config.labels.n_clusters)
            metrics["empty_clusters"] = empty
    with torch.device("meta"):  # an impossible U-Net fails now, not after an hour
        network = build_noise_predictor(work.config.diffusion.unet, len(names), work.config.data.size_px)
    write_labels(work, labels, confidence, names)
    metrics |= {"clusters": len(names), "diffusion_parameters": n_parameters(network)}
    if source != "ground_truth" and (images.labels >= 0).any():
        found_in_train = agreement(labels, images.labels, len(names), len(images.class_names))
        metrics |= {"cluster_accuracy_train": found_in_train.accuracy}
    if source == "scan":
        metrics |= agreement_on_test(work, "pseudo_labels", load_scan(work), len(names))
    return metrics


def agreement_on_test(work: Workspace, stage: str, clusterer: Classifier, n_clusters: int) -> Metrics:
    """How well the clusters of test images agree with their classes; nothing where these are not known."""
    test = labelled_test(work)
    if test is None:
        return {}
    clusters, _ = kept_predictions(clusterer, test.images, work.config.device)
    a = agreement(clusters, test.labels, n_clusters, len(test.class_names))
    work.on_progress(Progress(stage, 1, 1, 1.0, 0.0, {"cluster_accuracy": a.accuracy}))
    return {
        "cluster_accuracy": a.accuracy,
        "cluster_nmi": a.nmi,
        "cluster_ari": a.ari,
        "cluster_test_images": a.n_images,
    }


def _scan(work: Workspace, metrics: Metrics) -> tuple[np.ndarray, np.ndarray] | None:
    """SCAN and self-labelling: label and confidence of each training image."""
    config, images, device = work.config.labels, work.images, work.config.device
    out, views = work.stage_folder("pseudo_labels"), work.config.views
    encoder, n_clusters = load_encoder(work), config.n_clusters or 0
    total = config.scan.total_steps + (config.self_label.total_steps if config.self_label else 0)

    # 1. neighbours, by another network or by the projection that SimCLR trained to tell images apart
    scanned = out / "scan.safetensors"
    projection = load_projection(work)
    model = ScanClassifier(encoder, n_clusters, projection)
    if scanned.is_file():
        model.load_state_dict(load_file(scanned))
        with safe_open(scanned, "pt") as file:
            metadata = file.metadata() or {}
        if "scan_loss" in metadata:
            metrics["scan_loss"] = float(metadata["scan_loss"])
    else:
        other = config.scan.neighbours_by
        network = encoder if other is None else build_encoder(other).eval()
        features = kept_features(network, images.images, device)
        if other is None and projection is not None:
            with torch.no_grad():
                features = projection(torch.tensor(features)).numpy()
        k = min(config.scan.neighbours, len(images) - 1)
        near = nearest_others(unit_length(features), k, device=device)
        # 2. the SCAN loss
        execution = work.execution("pseudo_labels", out / "scan.state.pt", total, training="SCAN")
        trained = train_scan(
            encoder, images.images, near, n_clusters, views, config.scan, execution, config.seed, projection
        )
        if trained is None:
            return None
        model, metrics["scan_loss"] = trained
        # with its loss, for a run that is resumed after this step
        write_network(model, scanned, {"scan_loss": repr(metrics["scan_loss"])})
    # 3. self-labelling
    if config.self_label is not None:
        state_path = out / "self_label.state.pt"
        execution = work.execution("pseudo_labels", state_path, total, config.scan.total_steps, "self-labels")
        if not train_self_labels(model, images.images, views, config.self_label, execution, config.seed):
            return None
        # 4. SCAN's own clusters, if self-labelling collapsed into few or uneven ones
        labels, confidence = kept_predictions(model, images.images, device)
        before = ScanClassifier(load_encoder(work), n_clusters, load_projection(work))
        before.load_state_dict(load_file(scanned))
        scan_labels, scan_confidence = kept_predictions(before.eval(), images.images, device)
        fewer = len(np.unique(labels)) < len(np.unique(scan_labels))
        if fewer or evenness(labels, n_clusters) < COLLAPSED * evenness(scan_labels, n_clusters):
            log.warning("self-labelling collapsed into few clusters: those of SCAN are kept")
            metrics["self_label_collapsed"] = True
            model, labels, confidence = before, scan_labels, scan_confidence
    else:
        labels, confidence = kept_predictions(model, images.images, device)
    labels, kept = without_empty(labels)
    if len(kept) < n_clusters:
        model.keep_classes(torch.tensor(kept))
        labels, confidence = kept_predictions(model, images.images, device)
    write_network(model, _scan_path(work))
    return labels, confidence


def _of_features(work: Workspace, metrics: Metrics) -> tuple[np.ndarray, np.ndarray] | None:
    """Clusters the features of fixed networks: label and confidence of each training image."""
    config, images, device = work.config.labels, work.images.images, work.config.device
    n_clusters, seed = config.n_clusters or 0, config.seed
    encoders = [load_encoder(work), *map(build_encoder, config.spaces)]
    spaces = [unit_length(kept_features(one.eval(), images, device)) for one in encoders]
    joined = np.concatenate(spaces, 1)
    state_path = work.stage_folder("pseudo_labels") / f"{config.source}.state.pt"
    if config.source == "turtle":
        execution = work.execution("pseudo_labels", state_path, config.turtle.total_steps)
        found = turtle_labels(spaces, n_clusters, config.turtle, execution, seed)
    elif config.source == "temi":
        execution = work.execution("pseudo_labels", state_path, config.temi.total_steps)
        near = nearest_others(unit_length(joined), min(config.temi.neighbours, len(images) - 1), device=device)
        found = temi_labels(joined, near, n_clusters, config.temi, execution, seed)
    else:
        return kmeans_labels(joined, n_clusters, seed), np.ones(len(images), np.float32)
    if found is None:
        return None
    probabilities, metrics[f"{config.source}_loss"] = found
    return without_empty(probabilities.argmax(1))[0], probabilities.max(1)


def without_empty(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the clusters that have an image from 0: int64 (N,), and their numbers before, int64 (K,)."""
    kept, labels = np.unique(labels, return_inverse=True)
    return labels.astype(np.int64), kept.astype(np.int64)


def evenness(labels: np.ndarray, n_clusters: int) -> float:
    """The entropy of the sizes of C >= 2 clusters, divided by that of equal sizes: 0..1."""
    share = np.bincount(labels, minlength=n_clusters) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / np.log(n_clusters))


def _scan_path(work: Workspace) -> Path:
    return work.folder / "pseudo_labels" / "clusterer.safetensors"


def load_scan(work: Workspace) -> ScanClassifier:
    """SCAN's network, in eval mode on the CPU."""
    state = load_file(_scan_path(work))
    model = ScanClassifier(load_encoder(work), len(state["head.bias"]), load_projection(work))
    model.load_state_dict(state)
    return model.eval()


STAGE = Stage(
    make, depends_on, title="Pseudo-labels", reads_sets=True, memory_settings=("labels.scan.batch_size",)
)
