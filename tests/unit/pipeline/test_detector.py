from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sdviz.detection.feature_quality import effective_rank, knn_accuracy
from sdviz.detection.training import load_epoch
from sdviz.nn.batches import encode
from sdviz.pipeline import Progress, Workspace, detector
from sdviz.pipeline.backbone import load_backbone
from sdviz.pipeline.detector import feature_quality, load_detector
from sdviz.pipeline.shared.labels import source_labels
from sdviz.pipeline.shared.shards import reencode
from tests.stages import everything_in, work_in

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def work(scored_run: Path) -> Workspace:
    return work_in(scored_run, scored_run.parent / "tiny.yaml")


def test_the_loaded_detector_answers_as_the_run_did(work: Workspace) -> None:
    found = load_detector(work)
    assert not found.training and work.test is not None
    kept = load_file(work.folder / "features" / "ood_features.safetensors")
    x = torch.tensor(work.test.images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        features = found.encoder(x)
        g_in = found.g_in(features).numpy()
    np.testing.assert_allclose(features.numpy(), kept["test"], rtol=2e-2, atol=2e-2)  # float16 in the file
    np.testing.assert_allclose(g_in, kept["test.g_in"], rtol=2e-2, atol=2e-2)


def test_a_stopped_training_goes_on_to_the_same_weights(copied: Workspace) -> None:
    expected = everything_in(copied.folder / "detector")
    shutil.rmtree(copied.folder / "detector")
    asked = iter([False] * 5)
    assert detector.make(replace(copied, should_stop=lambda: next(asked, True))) is None
    assert (copied.folder / "detector" / "state.pt").exists()
    assert not (copied.folder / "detector" / "detector.safetensors").exists()
    made = detector.make(copied)
    assert made == {"detector_epochs": 3, "outliers": len(copied.images)}
    again = everything_in(copied.folder / "detector")
    assert {name: again[name] for name in expected} == expected


def test_the_features_are_looked_at_before_training_and_after_each_epoch(
    copied: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(copied.folder / "detector")
    told: list[Progress] = []
    with caplog.at_level("INFO", logger="sdviz"):
        detector.make(replace(copied, on_progress=told.append))
    found = [one for one in told if "effective_rank" in one.values]
    steps = found[-1].total // 3
    assert [one.step for one in found] == [0, steps, 2 * steps, 3 * steps]
    lines = [one.getMessage() for one in caplog.records if "effective rank" in one.getMessage()]
    assert [line.partition(":")[0] for line in lines] == [f"detector, epoch {i} of 3" for i in range(4)]
    # the same from the weights that were kept; all images are fewer than are looked at
    images, labels = copied.sources, source_labels(copied)
    for epoch, one in enumerate(found):
        encoder = load_backbone(copied)
        if epoch:
            load_epoch(encoder, copied.folder / "detector", epoch)
        features = encode(encoder, images.images, "cpu")
        assert one.values == pytest.approx(
            {
                "effective_rank": effective_rank(features),
                "knn_accuracy": knn_accuracy(features, labels),
                "knn_class_accuracy": knn_accuracy(features, images.labels),
            },
            rel=1e-4,
        )


def test_without_classes_beside_the_clusters_there_is_no_accuracy_of_classes() -> None:
    features = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    clusters, classes = np.arange(12) % 2, np.full(12, -1)
    assert set(feature_quality(features, clusters, classes)) == {"effective_rank", "knn_accuracy"}
    assert set(feature_quality(features, clusters, clusters)) == {"effective_rank", "knn_accuracy"}
    classes[:5] = 1
    assert feature_quality(features, clusters, classes)["knn_class_accuracy"] == 1.0


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_trained_weights_is_loaded(work: Workspace, share: float) -> None:
    start, end = load_backbone(work).state_dict(), load_detector(work).encoder.state_dict()
    found = load_detector(work, share=share)
    for name, value in found.encoder.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (1 - share) * start[name] + share * end[name])
    assert torch.equal(found.g_in.weight, load_detector(work).g_in.weight)


def test_both_sides_go_through_the_same_jpeg(
    copied: Workspace, scored_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = ["outliers.jpeg={quality: 30}", "detector.jpeg_both_sides=true"]
    work = work_in(copied.folder, scored_run.parent / "tiny.yaml", *jpeg)
    seen = []

    def watched(*args: object) -> bool:
        seen.append(args)
        return False

    monkeypatch.setattr("sdviz.pipeline.detector.train_detector", watched)
    assert detector.make(work) is None
    shown, plain = seen[0][1], work.sources.images
    np.testing.assert_array_equal(shown, reencode(plain, work.config.outliers.jpeg))
    assert not np.array_equal(shown, plain)
