from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sdviz.baselines import Images, Reference
from sdviz.baselines.distance.knn import KNN
from sdviz.nn.batches import encode
from sdviz.pipeline import Workspace, baseline_scores, tuning
from sdviz.pipeline.backbone import load_backbone
from sdviz.pipeline.shared.sets import evaluation_sets
from tests.tiny_runs import write_pictures

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_column_is_what_the_method_says_alone(compared: Workspace) -> None:
    encoder = load_backbone(compared)
    bank = Images(encode(encoder, compared.sources.images, "cpu"), ids=compared.sources.ids)
    method = KNN(k=3).fit(Reference(bank))
    table = pq.read_table(compared.folder / "bundle" / "baselines.parquet").to_pandas()
    for one in evaluation_sets(compared):
        expected = method.score(Images(encode(encoder, one.images.images, "cpu"), ids=one.images.ids))
        np.testing.assert_allclose(table[table["set"] == one.key]["knn"], expected, atol=1e-6)


def test_another_set_is_scored_without_any_training(
    compared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(compared.folder, tmp_path / "run", ignore=shutil.ignore_patterns("baseline_scores*"))
    far = f"folder:{write_pictures(tmp_path / 'far', 3, {'black': (20, 20, 20)})}"
    evaluation = compared.config.evaluation.model_copy(update={"far": (far,)})
    config = compared.config.model_copy(update={"evaluation": evaluation})

    def refuse(*args: object) -> None:
        raise AssertionError("a network was trained")

    monkeypatch.setattr("sdviz.baselines.finetuning.train_networks", refuse)
    baseline_scores.make(replace(compared, folder=tmp_path / "run", config=config))
    for one in compared.config.evaluation.baselines:
        before, after = (
            load_file(folder / "baseline_scores" / f"{one.key}.safetensors")
            for folder in (compared.folder, tmp_path / "run")
        )
        assert set(after) == {*before, far}
        for name, scores in before.items():
            np.testing.assert_array_equal(after[name], scores)


def test_with_one_trial_a_tuned_row_is_the_method_itself(untuned: Workspace) -> None:
    own = untuned.config.evaluation.tuning
    assert own is not None
    evaluation = untuned.config.evaluation.model_copy(update={"tuning": own.model_copy(update={"trials": 1})})
    work = replace(untuned, config=untuned.config.model_copy(update={"evaluation": evaluation}))
    tuning.make(work)
    baseline_scores.make(work)
    found = {one.key: one for one in baseline_scores.read_scores(work)}
    table = pq.read_table(work.folder / "evaluation" / "scores.parquet").to_pandas()
    for name, scores in found["ours+tuned"].scores.items():
        np.testing.assert_allclose(scores, table[table["set"] == name]["total"], atol=1e-12)
    for key in ("dn2", "multiclass_ad", "fake_it"):
        assert [len(found[one].trials) for one in (key, f"{key}+tuned")] == [0, 1]
        for name, scores in found[key].scores.items():
            np.testing.assert_array_equal(found[f"{key}+tuned"].scores[name], scores)
