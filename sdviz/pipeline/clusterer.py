"""Stage `clusterer`: trains a classifier that gives any image a cluster, where the labels are not from SCAN.

Reads pseudo_labels/; writes clusterer/clusterer.safetensors.
"""

from __future__ import annotations

import time
from pathlib import Path

from safetensors.torch import load_file

from ..config.tree import RunConfig
from ..nn.classifier import Classifier, ScanClassifier, SmallClassifier
from ..nn.feature_cache import kept_features
from ..nn.supervised import accuracy, train_classifier, train_linear
from . import pseudo_labels
from .encoder import load_encoder
from .pseudo_labels import agreement_on_test, load_scan
from .shared.labels import GIVEN, labelled_test, read_cluster_names, read_labels
from .workspace import Metrics, Settings, Stage, Workspace, branches, write_network


def depends_on(config: RunConfig) -> Settings:
    """The labels and, unless SCAN is the clusterer, `clusterer`."""
    labels = pseudo_labels.depends_on(config)
    return labels if config.labels.source == "scan" else labels | branches(config, "clusterer")


def make(work: Workspace) -> Metrics | None:
    """Trains a classifier of the labels and measures it on the test images. After a stop it starts over.

    Clusters of an encoder's features get a linear head on that encoder, given labels a small network.
    """
    started = time.monotonic()
    labels, names = read_labels(work), read_cluster_names(work)
    images, device = work.images.images, work.config.device
    clusterer: Classifier | None
    if _is_linear(work.config):
        encoder = load_encoder(work)
        clusterer = train_linear(encoder, kept_features(encoder, images, device), labels, len(names))
    else:
        config = work.config.clusterer
        execution = work.execution("clusterer", None, config.total_steps)
        clusterer = train_classifier(images, labels, len(names), config, execution, work.config.seed)
    if clusterer is None:
        return None
    metrics: Metrics = {"clusterer_training_sec": round(time.monotonic() - started, 1)}
    test = labelled_test(work)
    if _is_linear(work.config):
        metrics |= agreement_on_test(work, "clusterer", clusterer, len(names))
    elif test is not None and names == test.class_names:
        share, n = accuracy(clusterer, test.images, test.labels)
        metrics |= {"clusterer_accuracy": share, "clusterer_test_images": n}
    work.stage_folder("clusterer")
    write_network(clusterer, _path(work))
    return metrics


def load_clusterer(work: Workspace) -> Classifier:
    """The network that gives any image a cluster, in eval mode on the CPU."""
    if work.config.labels.source == "scan":
        return load_scan(work)
    state = load_file(_path(work))
    n_clusters = len(state["head.bias"])
    model: Classifier
    if _is_linear(work.config):
        model = ScanClassifier(load_encoder(work), n_clusters)
    else:
        model = SmallClassifier(n_clusters, work.config.clusterer.width)
    model.load_state_dict(state)
    return model.eval()


def _is_linear(config: RunConfig) -> bool:
    return config.labels.source not in GIVEN


def _path(work: Workspace) -> Path:
    return work.folder / "clusterer" / "clusterer.safetensors"


STAGE = Stage(
    make,
    depends_on,
    title="Clusterer",
    is_wanted=lambda config: config.labels.source != "scan",
    memory_settings=("clusterer.batch_size",),
)
