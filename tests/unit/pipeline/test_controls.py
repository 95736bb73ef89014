from __future__ import annotations

import io
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from sdviz.detection.training import train_detector
from sdviz.nn.randomness import image_noise
from sdviz.pipeline import (
    Workspace,
)
from sdviz.pipeline.controls import noised_images
from sdviz.pipeline.outliers import read_outliers
from tests.stages import begun, work_in

pytestmark = pytest.mark.usefixtures("one_thread")


def test_noised_images_have_the_outliers_noise_and_no_denoising(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    noised = noised_images(work)
    noise = image_noise(work.images.ids.tolist(), (3, 8, 8), 0, "start")
    x_0 = torch.tensor(work.images.images).permute(0, 3, 1, 2) / 127.5 - 1
    x_t = work.schedule.add_noise(x_0, noise, 50).clamp(-1, 1).permute(0, 2, 3, 1)
    assert np.abs((x_t.numpy() + 1) * 127.5 - noised).max() <= 0.51


def test_noised_images_go_through_jpeg_as_outliers_do(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"
    plain = noised_images(work_in(scored_run, path))
    jpeg = noised_images(work_in(scored_run, path, "outliers.jpeg={quality: 60, subsampling: '4:4:4'}"))
    for before, after in zip(plain, jpeg, strict=True):
        stream = io.BytesIO()
        Image.fromarray(before).save(stream, "JPEG", quality=60, subsampling=0)
        np.testing.assert_array_equal(after, np.asarray(Image.open(stream)))


def test_controls_change_one_thing_of_the_recipe(
    copied: Workspace, scored_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = "[right_label_as_id, lambda_zero, no_outliers]"
    work = work_in(copied.folder, scored_run.parent / "tiny.yaml", f"evaluation.controls={kinds}")
    seen = []

    def watched(*args: Any) -> bool:  # noqa: ANN401
        seen.append(args)
        return train_detector(*args)

    monkeypatch.setattr("sdviz.pipeline.detector.train_detector", watched)
    redone = ["controls", "features", "evaluation", "bundle"]
    for stage in redone:
        (work.folder / f"{stage}.done.json").unlink()
    shutil.rmtree(work.folder / "controls")
    assert [stage for stage, skipped in begun(work) if not skipped] == redone

    own = work.config.detector
    assert own is not None and own.reconstructed_id == 0.3 and own.outlier_weight > 0
    changes = {"reconstructed_id": 0.5}, {"outlier_weight": 0.0}, {"reconstructed_id": 0.0}
    for args, changed in zip(seen, changes, strict=True):
        _, images, _, outliers, _, config, _, rebuilt, *_ = args
        assert config == own.model_copy(update=changed)
        np.testing.assert_array_equal(images, work.sources.images)
        if args is seen[2]:  # ID images alone
            assert len(outliers) == 0 and rebuilt is None
            continue
        np.testing.assert_array_equal(outliers, read_outliers(work, "wrong"))
        np.testing.assert_array_equal(rebuilt, read_outliers(work, "right")[: len(images)])
    report = json.loads((work.folder / "evaluation" / "report.json").read_text())
    assert set(report["controls"]) == {"right_label_as_id", "lambda_zero", "no_outliers"}
    alone = report["controls"]["no_outliers"]
    assert alone["bank"]["n_outliers"] == 0
    assert all("votes" not in one["modes"] for one in alone["results"].values())
    banks = [
        load_file(work.folder / "features" / where / "features.safetensors")["id_features"]
        for where in ("", "right_label_as_id", "lambda_zero", "no_outliers")
    ]
    for i, j in combinations(range(4), 2):
        assert not np.array_equal(banks[i], banks[j])
