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
import torch
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from sdviz.detection.training import train_detector
from sdviz.evaluation import read_report
from sdviz.evaluation.tuning import validation_split
from sdviz.nn.batches import encode
from sdviz.pipeline import Workspace, run_stages, tuning
from sdviz.pipeline.backbone import load_backbone
from sdviz.pipeline.outliers import read_outliers
from sdviz.pipeline.shared.labels import source_labels
from sdviz.pipeline.shared.sets import NamedSet, evaluation_sets
from tests.stages import everything_in, work_in
from tests.tiny_runs import COLOURS, write_pictures, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")

# one epoch, and k that 40 images allow
METHODS = (
    "{method: dn2, k: 1}, {method: dn2, k: 2, network: encoder}, {method: ssd, normalize: false},"
    " {method: multiclass_ad, epochs: 1}, {method: fake_it, epochs: 1, generator_steps: 2}, msp"
)
ROWS = ["ours+tuned", "dn2", "dn2+tuned", "dn2@encoder", "dn2+tuned@encoder", "ssd+raw", "ssd+tuned"]
ROWS += ["multiclass_ad", "multiclass_ad+tuned", "fake_it", "fake_it+tuned", "msp"]
TRIALS = 3


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A complete run on five classes, tuned on left-out ones."""
    folder = tmp_path_factory.mktemp("tuned")
    path = write_tiny_detector_config(folder, diffusion_steps=4, steps=4, epochs=1)
    near = write_pictures(folder / "other-near", 4, {"black": (20, 20, 20)})
    pictures = write_pictures(
        folder / "five", 10, COLOURS | {"grey": (120, 120, 120), "white": (220, 220, 220)}
    )
    overrides = [
        f"data.id=folder:{pictures}",
        "labels={source: ground_truth}",
        f"evaluation.near=['folder:{near}']",
    ]
    overrides += [
        f"evaluation.tuning={{trials: {TRIALS}, criterion: left_out, holdout: 0.4}}",
        f"evaluation.baselines=[{METHODS}]",
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = work_in(folder / "run", path, *overrides)
        assert run_stages(work)
    finally:
        torch.set_num_threads(before)
    return work


@pytest.fixture
def again(tuned: Workspace, tmp_path: Path) -> Workspace:
    """The same run before its trials, which will be on the validation set."""
    folder = tmp_path / "run"
    shutil.copytree(tuned.folder, folder, ignore=shutil.ignore_patterns("tuning*", "evaluation*", "bundle*"))
    own = tuned.config.evaluation.tuning
    assert own is not None
    e = tuned.config.evaluation.model_copy(
        update={"tuning": own.model_copy(update={"criterion": "validation"})}
    )
    return replace(tuned, folder=folder, config=tuned.config.model_copy(update={"evaluation": e}))


def test_every_method_and_ours_have_the_same_number_of_trials(tuned: Workspace) -> None:
    report = read_report(tuned.folder / "bundle" / "report.json")
    assert list(report.baselines) == ROWS
    assert report.tuning is not None and report.tuning.trials == TRIALS
    columns = pq.read_table(tuned.folder / "bundle" / "baselines.parquet").column_names
    assert columns[3:] == ROWS
    for key, one in report.baselines.items():
        if "tuned" not in key:
            assert not one.trials
            continue
        # of SSD there are only two forms
        assert len(one.trials) == (2 if key == "ssd+tuned" else TRIALS)
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


def test_a_value_is_the_auroc_of_held_out_id_images_against_the_validation_set(again: Workspace) -> None:
    assert tuning.make(again) == {"tuned": 6}
    trials = json.loads((again.folder / "tuning" / "dn2+tuned.json").read_text())
    encoder, images = load_backbone(again), again.sources.images
    own = again.config.evaluation.tuning
    assert own is not None
    split = validation_split(source_labels(again), own.holdout, own.seed)
    (outside,) = [one.images.images for one in evaluation_sets(again) if one.role == "validation"]
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


def test_no_image_of_a_test_set_changes_a_choice(again: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.make(again)
    chosen = {path.name: path.read_bytes() for path in (again.folder / "tuning").glob("*.json")}
    scores = load_file(again.folder / "tuning" / "dn2+tuned.safetensors")
    shutil.rmtree(again.folder / "tuning")

    def spoiled(work: Workspace) -> Iterator[NamedSet]:
        for one in evaluation_sets(work):
            if one.role == "validation":
                yield one
            else:
                yield replace(one, images=replace(one.images, images=255 - one.images.images))

    monkeypatch.setattr("sdviz.pipeline.baselines.evaluation_sets", spoiled)
    tuning.make(again)
    assert {path.name: path.read_bytes() for path in (again.folder / "tuning").glob("*.json")} == chosen
    assert len(chosen) == 6 and set(scores) == {one.key for one in evaluation_sets(again)}


def test_ours_is_never_taught_a_left_out_cluster(
    tuned: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tuned.folder, tmp_path / "run", ignore=shutil.ignore_patterns("tuning*", "evaluation*"))
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
    assert 2 * TRIALS <= len(seen) <= 2 * TRIALS + 1
    for detector, images, labels, outliers, *_ in seen[: 2 * TRIALS]:
        known = {y[image.tobytes()] for image in images}
        assert len(known) == 3 == detector.g_in.out_features == len(set(labels))
        assert {asked[picture.tobytes()] for picture in outliers} <= known
    assert {args[5].optimizer.learning_rate for args in seen} <= {1e-4, 3e-4, 1e-3}


def test_a_stop_keeps_trials_and_the_rest_is_the_same(again: Workspace) -> None:
    tuning.make(again)
    whole = everything_in(again.folder / "tuning")
    shutil.rmtree(again.folder / "tuning")
    trials = again.folder / "tuning" / "dn2+tuned.json"
    assert tuning.make(replace(again, should_stop=trials.is_file)) is None
    kept = json.loads(trials.read_text())
    assert 1 <= len(kept) < TRIALS
    assert tuning.make(again) is not None
    assert everything_in(again.folder / "tuning") == whole
