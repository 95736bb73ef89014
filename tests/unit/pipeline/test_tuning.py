from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from sdviz.detection.training import train_detector
from sdviz.evaluation import read_report
from sdviz.evaluation.tuning import validation_split
from sdviz.nn.batches import encode
from sdviz.pipeline import Workspace, tuning
from sdviz.pipeline.backbone import load_backbone
from sdviz.pipeline.outliers import read_outliers
from sdviz.pipeline.shared.labels import source_labels
from sdviz.pipeline.shared.sets import NamedSet, evaluation_sets
from tests.stages import everything_in

pytestmark = pytest.mark.usefixtures("one_thread")

N_TRIALS = 3  # of the fixture

ROWS = ["ours+tuned", "dn2", "dn2+tuned", "dn2@encoder", "dn2+tuned@encoder", "ssd+raw", "ssd+tuned"]
ROWS += ["multiclass_ad", "multiclass_ad+tuned", "fake_it", "fake_it+tuned", "msp"]


def test_every_method_and_ours_have_the_same_number_of_trials(tuned: Workspace) -> None:
    report = read_report(tuned.folder / "bundle" / "report.json")
    assert list(report.baselines) == ROWS
    assert report.tuning is not None and report.tuning.trials == N_TRIALS
    columns = pq.read_table(tuned.folder / "bundle" / "baselines.parquet").column_names
    assert columns[3:] == ROWS
    for key, one in report.baselines.items():
        if "tuned" not in key:
            assert not one.trials
            continue
        # of SSD there are only two forms
        assert len(one.trials) == (2 if key == "ssd+tuned" else N_TRIALS)
        assert "tuned" in one.title
        values = [-1 if trial.value is None else trial.value for trial in one.trials]
        best = one.trials[int(np.argmax(values))].settings
        assert one.settings == one.settings | best
    own = report.baselines["dn2+tuned"].trials[0]
    assert own.settings == {"k": 1, "normalize": False}
    assert report.baselines["ours+tuned"].trials[0].settings == {
        **{"k": 3, "alpha": 0.3, "normalize": True},
        **{"frozen_blocks": 0, "learning_rate": 1e-3, "reconstructed_id": 0.3},
    }
    assert report.baselines["multiclass_ad+tuned"].trials[1].settings.keys() == {
        *("frozen_blocks", "views", "k", "normalize", "learning_rate")
    }


def test_a_value_is_the_auroc_of_held_out_id_images_against_the_validation_set(untuned: Workspace) -> None:
    assert tuning.make(untuned) == {"tuned": 6}
    trials = json.loads((untuned.folder / "tuning" / "dn2+tuned.json").read_text())
    encoder, images = load_backbone(untuned), untuned.sources.images
    own = untuned.config.evaluation.tuning
    assert own is not None
    split = validation_split(source_labels(untuned), own.holdout, own.seed)
    (outside,) = [one.images.images for one in evaluation_sets(untuned) if one.role == "validation"]
    known, inside, ood = (encode(encoder, x, "cpu") for x in (images[split.fit], images[split.inside], outside))
    for trial in trials:
        k, normalize = trial["settings"]["k"], trial["settings"]["normalize"]
        scores = []
        for queries in (inside, ood):
            a, b = (x.astype(float) for x in (queries, known))
            if normalize:
                a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
            squares = ((a[:, None] - b[None]) ** 2).sum(2)
            scores.append(np.sort(squares, axis=1)[:, :k].sum(1))
        truth = np.repeat([0, 1], [len(inside), len(ood)])
        assert trial["value"] == pytest.approx(roc_auc_score(truth, np.concatenate(scores)), abs=1e-9)


def test_no_image_of_a_test_set_changes_a_choice(untuned: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.make(untuned)
    chosen = {path.name: path.read_bytes() for path in (untuned.folder / "tuning").glob("*.json")}
    shutil.rmtree(untuned.folder / "tuning")

    def spoiled(work: Workspace) -> Iterator[NamedSet]:
        for one in evaluation_sets(work):
            if one.role == "validation":
                yield one
            else:
                yield replace(one, images=replace(one.images, images=255 - one.images.images))

    monkeypatch.setattr("sdviz.pipeline.baselines.evaluation_sets", spoiled)
    tuning.make(untuned)
    assert {path.name: path.read_bytes() for path in (untuned.folder / "tuning").glob("*.json")} == chosen
    assert len(chosen) == 6


def test_ours_is_never_taught_a_left_out_cluster(
    tuned: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tuned.folder, tmp_path / "run", ignore=shutil.ignore_patterns("tuning*"))
    work = replace(tuned, folder=tmp_path / "run")
    seen: list[Any] = []

    def watched(*args: Any) -> bool:  # noqa: ANN401
        seen.append(args)
        return train_detector(*args)

    monkeypatch.setattr("sdviz.pipeline.tuning.train_detector", watched)
    tuning.make(work)
    y = {image.tobytes(): label for image, label in zip(work.sources.images, source_labels(work), strict=True)}
    table = pq.read_table(work.folder / "outliers" / "outliers.parquet").to_pydict()
    asked = dict(zip((x.tobytes() for x in read_outliers(work, "wrong")), table["target_label"], strict=True))
    # two pairs for each trial, and perhaps the best one on all images
    assert 2 * N_TRIALS <= len(seen) <= 2 * N_TRIALS + 1
    for detector, images, labels, outliers, *_ in seen[: 2 * N_TRIALS]:
        known = {y[image.tobytes()] for image in images}
        assert len(known) == 3 == detector.g_in.out_features == len(set(labels))
        assert {asked[picture.tobytes()] for picture in outliers} <= known
    assert {args[5].optimizer.learning_rate for args in seen} <= {1e-4, 3e-4, 1e-3}


def test_a_stop_keeps_trials_and_the_rest_is_the_same(untuned: Workspace) -> None:
    tuning.make(untuned)
    whole = everything_in(untuned.folder / "tuning")
    shutil.rmtree(untuned.folder / "tuning")
    trials = untuned.folder / "tuning" / "dn2+tuned.json"
    assert tuning.make(replace(untuned, should_stop=trials.is_file)) is None
    kept = json.loads(trials.read_text())
    assert 1 <= len(kept) < N_TRIALS
    assert tuning.make(untuned) is not None
    assert everything_in(untuned.folder / "tuning") == whole
