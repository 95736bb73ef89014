from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.data import ImageSet
from sdviz.nn.batches import encode
from sdviz.pipeline import Workspace
from sdviz.pipeline.detector import load_detector
from sdviz.pipeline.features import _warn_of_other_compression
from sdviz.pipeline.outliers import outlier_ids, read_outliers
from sdviz.pipeline.shared.sets import NamedSet, evaluation_sets
from tests.stages import begun, work_in


def test_an_ood_set_that_is_compressed_otherwise_than_id_images(
    work_on: Callable[..., Workspace], caplog: pytest.LogCaptureFixture
) -> None:
    ours = work_on(".jpg")
    plain = np.zeros((2, 8, 8, 3), np.uint8)
    for share in (0.0, 1.0, None):
        labels, ids = np.full(2, -1), np.array(["a", "b"])
        other = ImageSet("svhn", "test", plain, labels, ids, (), share)
        _warn_of_other_compression(ours, NamedSet("svhn", "far", other, {}))
    (record,) = [one for one in caplog.records if one.name.startswith("sdviz")]
    assert "svhn did not go through JPEG: what tells them apart may be compression" in record.getMessage()


def test_snapshots_are_features_of_a_few_images_of_every_set(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    folder, config = work.folder / "features", work.config.detector
    assert config is not None and config.snapshot_ids == 24
    table = pq.read_table(folder / "snapshots.parquet").to_pylist()
    pictures = {"train": dict(zip(work.sources.ids.tolist(), work.sources.images, strict=True))}
    pictures["outlier"] = dict(zip(outlier_ids(work).tolist(), read_outliers(work, "wrong"), strict=True))
    for one in evaluation_sets(work):
        pictures[one.key] = dict(zip(one.images.ids.tolist(), one.images.images, strict=True))
    roles = [row["role"] for row in table]
    assert list(dict.fromkeys(roles)) == list(pictures)
    # a fifth of 24, rounded down, or all that there are
    assert {role: roles.count(role) for role in pictures} == {
        key: min(4, len(one)) for key, one in pictures.items()
    }
    epochs = load_file(folder / "snapshots.safetensors")
    assert sorted(epochs) == [f"epoch_{i:03d}" for i in range(config.epochs + 1)]
    images = np.stack([pictures[row["role"]][row["id"]] for row in table])
    after = encode(load_detector(work).encoder, images, "cpu")
    np.testing.assert_allclose(epochs[max(epochs)], after, rtol=2e-2, atol=2e-2)
    assert np.abs(epochs["epoch_000"].astype(float) - after).max() > 0.05


def test_the_share_of_the_trained_weights_is_chosen_after_training(copied: Workspace, scored_run: Path) -> None:
    def report(folder: Path) -> dict[str, Any]:
        return json.loads((folder / "evaluation" / "report.json").read_text())

    def both(tree: dict[str, Any]) -> dict[str, Any]:
        return {name: one["modes"]["both"] for name, one in tree["results"].items()}

    # 1. the curve ends at the control without training and at the detector
    own = report(scored_run)
    curve = {share: one["results"] for share, one in own["interpolation"].items()}
    assert list(curve) == ["0", "0.25", "0.5", "0.75", "1"]
    assert curve["0"] == both(own["controls"]["no_training"])
    assert curve["1"] == both(own)
    # 2. another share trains nothing anew, and its detector has that point of the curve
    path, redone = scored_run.parent / "tiny.yaml", ["features", "evaluation", "bundle"]
    work = work_in(copied.folder, path, "detector.interpolation=0.25", "evaluation.interpolation=[0.25, 1]")
    for stage in redone:
        (work.folder / f"{stage}.done.json").unlink()
    assert [stage for stage, skipped in begun(work) if not skipped] == redone
    again = report(work.folder)
    assert both(again) == curve["0.25"] != curve["1"]
    assert {share: one["results"] for share, one in again["interpolation"].items()} == {
        share: curve[share] for share in ("0.25", "1")
    }
    # 3. the bundle has it, too
    assert work.test is not None
    kept = load_file(work.folder / "features" / "ood_features.safetensors")["test"]
    answered = Bundle.load(work.folder / "bundle", device="cpu").features(work.test.images)
    np.testing.assert_allclose(answered, kept, rtol=2e-2, atol=2e-2)
    snapshots = load_file(work.folder / "features" / "snapshots.safetensors")
    before = load_file(scored_run / "features" / "snapshots.safetensors")
    np.testing.assert_array_equal(snapshots["epoch_000"], before["epoch_000"])
    assert not np.array_equal(snapshots["epoch_003"], before["epoch_003"])
