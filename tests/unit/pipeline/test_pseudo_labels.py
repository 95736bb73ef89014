from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sdviz.config.nodes import NetworkConfig
from sdviz.data import DataError
from sdviz.detection.knn import nearest_others, unit_length
from sdviz.nn.batches import encode, predict
from sdviz.nn.classifier import ScanClassifier
from sdviz.nn.encoder import Encoder, build_encoder
from sdviz.pipeline import (
    pseudo_labels,
    read_labels,
    run_stages,
)
from sdviz.pipeline.clusterer import load_clusterer
from sdviz.pipeline.encoder import load_encoder
from sdviz.pipeline.pseudo_labels import evenness
from sdviz.scan.clustering import train_scan
from sdviz.scan.metrics import agreement
from tests.stages import begun, work_in
from tests.tiny_runs import write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_labels_from_kmeans(tmp_path: Path, data_root: Path) -> None:
    config = write_tiny_detector_config(tmp_path, diffusion_steps=4, steps=20, epochs=1)
    work = work_in(tmp_path / "run", config, "labels.source=kmeans", "clusterer.total_steps=5")
    assert [stage for stage, _ in begun(work, "diffusion")] == [
        "encoder",
        "pseudo_labels",
        "clusterer",
        "diffusion",
    ]
    labels = read_labels(work)
    assert sorted(set(labels.tolist())) == [0, 1, 2]
    metrics = json.loads((work.folder / "pseudo_labels.done.json").read_text())["metrics"]
    assert metrics["cluster_accuracy_train"] == agreement(labels, work.images.labels, 3, 3).accuracy
    # clusters of the encoder's features: nearer to their own centre than to another one, mostly
    features = encode(load_encoder(work), work.images.images, "cpu")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centres = np.stack([unit[labels == c].mean(0) for c in range(3)])
    assert (((unit[:, None] - centres) ** 2).sum(-1).argmin(1) == labels).all()


@pytest.mark.parametrize("source", ["turtle", "temi"])
def test_labels_from_fixed_features(tmp_path: Path, data_root: Path, source: str) -> None:
    config = write_tiny_detector_config(tmp_path, diffusion_steps=4, steps=20, epochs=1)
    quick = (f"labels.{source}.total_steps=100", "labels.temi.heads=2", "labels.temi.hidden=[16, 8]")
    quick += (
        "labels.temi.optimizer.learning_rate=1e-2",
        "labels.temi.teacher_decay=0.9",
        "labels.temi.neighbours=3",
    )
    second = "labels.spaces=[{width: 4, seed: 5}]"
    work = work_in(tmp_path / "run", config, f"labels.source={source}", second, *quick)
    run_stages(work, until="clusterer")
    labels = read_labels(work)
    assert set(labels.tolist()) <= {0, 1, 2} and len(set(labels.tolist())) >= 2
    metrics = json.loads((work.folder / "pseudo_labels.done.json").read_text())["metrics"]
    assert np.isfinite(metrics[f"{source}_loss"])
    # the clusterer is a linear head on the encoder, and finds the clusters of most training images again
    clusterer = load_clusterer(work)
    assert isinstance(clusterer, ScanClassifier)
    assert (predict(clusterer, work.images.images, "cpu")[0] == labels).mean() > 0.8
    assert json.loads((work.folder / "clusterer.done.json").read_text())["metrics"]["cluster_test_images"] > 0


def test_scan_takes_the_neighbours_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_tiny_detector_config(tmp_path, steps=20)
    seen: list[np.ndarray] = []

    def spy(encoder: Encoder, images: np.ndarray, neighbours: np.ndarray, *rest: Any) -> object:  # noqa: ANN401
        seen.append(neighbours)
        return train_scan(encoder, images, neighbours, *rest)

    monkeypatch.setattr(pseudo_labels, "train_scan", spy)
    setting = "labels.scan.neighbours_by={arch: small, width: 6, seed: 3}"
    works = [work_in(tmp_path / f"run{i}", config, *more) for i, more in enumerate([(), (setting,)])]
    for work in works:
        run_stages(work, until="pseudo_labels")
    network = build_encoder(NetworkConfig(arch="small", width=6, seed=3))
    near = nearest_others(
        unit_length(encode(network, works[1].images.images, "cpu")), seen[1].shape[1], device="cpu"
    )
    assert (seen[1] == near).all() and (seen[0] != near).any()


def test_empty_clusters_are_left_out_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_tiny_detector_config(tmp_path, steps=20)
    many = ("labels.n_clusters=20", "labels.scan.head_steps=100", "labels.self_label=null")
    work = work_in(tmp_path / "run", config, *many)
    run_stages(work, until="pseudo_labels")
    labels = read_labels(work)
    n = len(set(labels.tolist()))
    assert 2 <= n < 20 and sorted(set(labels.tolist())) == list(range(n))
    assert f"{20 - n} of 20 clusters are empty and left out" in caplog.text
    metrics = json.loads((work.folder / "pseudo_labels.done.json").read_text())["metrics"]
    assert (metrics["clusters"], metrics["empty_clusters"]) == (n, 20 - n)
    # the network that names any image's cluster has as many
    found, _ = predict(load_clusterer(work), work.images.images, "cpu")
    assert (found == labels).all()


def test_the_loss_of_scan_is_kept_when_a_run_is_resumed_after_it(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, steps=20)
    whole = work_in(tmp_path / "run", config)
    run_stages(whole, until="encoder")
    shutil.copytree(tmp_path / "run", tmp_path / "part")
    told: list[str] = []
    expected = pseudo_labels.make(replace(whole, on_progress=lambda p: told.append(p.training)))
    assert list(dict.fromkeys(filter(None, told))) == ["SCAN", "self-labels"]
    scanned = tmp_path / "part" / "pseudo_labels" / "scan.safetensors"
    assert pseudo_labels.make(work_in(tmp_path / "part", config, stop=scanned.exists)) is None
    assert scanned.exists()
    assert pseudo_labels.make(work_in(tmp_path / "part", config)) == expected
    assert expected is not None and np.isfinite(expected["scan_loss"])


def test_self_labels_that_collapse_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def collapse(model: ScanClassifier, *rest: object) -> bool:
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.copy_(torch.arange(len(model.head.bias)))
        return True

    monkeypatch.setattr("sdviz.pipeline.pseudo_labels.train_self_labels", collapse)
    path = write_tiny_detector_config(tmp_path)
    work = work_in(tmp_path / "run", path)
    begun(work, "pseudo_labels")
    metrics = json.loads((work.folder / "pseudo_labels.done.json").read_text())["metrics"]
    assert metrics["self_label_collapsed"] is True
    assert len(set(read_labels(work).tolist())) == 3
    # the network that names clusters is SCAN's, and says the same
    labels, _ = predict(load_clusterer(work), work.images.images, "cpu")
    np.testing.assert_array_equal(labels, read_labels(work))
    scan = load_file(work.folder / "pseudo_labels" / "scan.safetensors")
    kept = load_file(work.folder / "pseudo_labels" / "clusterer.safetensors")
    assert all(np.array_equal(scan[key], kept[key]) for key in scan)


def test_evenness() -> None:
    assert evenness(np.array([0, 1, 2, 0, 1, 2]), 3) == pytest.approx(1)
    assert evenness(np.zeros(5, np.int64), 3) == 0
    assert evenness(np.array([0, 0, 1, 1]), 4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.id=shapes-empty", "data.size_px=32"], "2000 of 2000 images have no label"),
        (
            ["data.id=shapes", "data.size_px=32", "data.limit=5"],
            "no image of class '.*' among the 5 to train on",
        ),
        (["data.id=nothing"], "no data set 'nothing'"),
        (["data.id=shapes", "data.size_px=32", "data.limit=200", "data.test_split=val"], "not 'val'"),
        (["diffusion.unet.channels=[8, 8, 8, 8, 8]"], "image size 8 px is not a multiple of 16"),
    ],
)
def test_what_cannot_be_trained_is_found_first(
    tmp_path: Path, data_root: Path, overrides: list[str], expected: str
) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path), *overrides)
    with pytest.raises(ValueError, match=expected):
        pseudo_labels.make(work)


def test_one_class_is_refused(tmp_path: Path) -> None:
    config = write_tiny_config(tmp_path)
    for name in ("red", "green"):
        for path in (tmp_path / "pictures" / name).iterdir():
            path.unlink()
        (tmp_path / "pictures" / name).rmdir()
    with pytest.raises(DataError, match="at least 2 classes, there is 1"):
        pseudo_labels.make(work_in(tmp_path / "run", config))
