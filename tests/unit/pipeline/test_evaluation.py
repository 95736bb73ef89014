from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from sdviz.config.reading import load_config
from sdviz.detection import metrics
from sdviz.evaluation import read_report
from sdviz.pipeline import Workspace, evaluation
from sdviz.text import tree_hash
from tests.stages import work_in

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_method_has_scores_and_figures_that_agree(compared: Workspace) -> None:
    report = read_report(compared.folder / "bundle" / "report.json")
    keys = [one.key for one in compared.config.evaluation.baselines]
    assert list(report.baselines) == keys
    assert report.baselines["ssd@encoder"].title.endswith("on the encoder")
    table = pq.read_table(compared.folder / "bundle" / "baselines.parquet").to_pandas()
    scores = pq.read_table(compared.folder / "bundle" / "scores.parquet").to_pandas()
    assert table["id"].tolist() == scores["id"].tolist()
    inside = table[table["role"] == "id"]
    for key in keys:
        for name, result in report.baselines[key].results.items():
            outside = table[table["set"] == name]
            truth = np.repeat([0, 1], [len(inside), len(outside)])
            expected = roc_auc_score(truth, np.concatenate([inside[key], outside[key]]))
            assert result.auroc == pytest.approx(expected, abs=1e-12), (key, name)


def test_no_stage_sees_a_picture_of_another_set(compared: Workspace) -> None:
    (near,) = compared.config.evaluation.near
    side = "train" if "folder/pictures/red/0.png" in " ".join(compared.images.ids) else "test"
    overlap = read_report(compared.folder / "bundle" / "report.json").overlap
    assert overlap is not None and overlap.sets == {near: {side: 1}}
    assert (overlap.on_overlap, overlap.copies) == ("drop", 0)
    scores = pq.read_table(compared.folder / "bundle" / "scores.parquet").to_pandas()
    ids = scores[scores["set"] == near]["id"]
    assert len(ids) == 4 and not ids.str.contains("copy").any()
    others = [load_file(path) for path in (compared.folder / "baselines").glob("*.safetensors")]
    others.append(load_file(compared.folder / "features" / "ood_features.safetensors"))
    assert {len(one[near]) for one in others if near in one} == {4}
    assert "copy" not in str(
        pq.read_table(compared.folder / "features" / "snapshots.parquet")["id"].to_pylist()
    )


def test_the_report_says_what_the_scores_say(scored_run: Path) -> None:
    report = json.loads((scored_run / "bundle" / "report.json").read_text())
    scores = pq.read_table(scored_run / "bundle" / "scores.parquet")
    inside = scores.filter(pc.equal(scores["role"], "id"))["total"].to_numpy()
    for name, result in report["results"].items():
        outside = scores.filter(pc.equal(scores["set"], name))["total"].to_numpy()
        assert result["modes"]["both"]["auroc"] == metrics.auroc(inside, outside)
    assert report["bank"]["ratio"] == 1
    assert set(report["controls"]) == {"no_training", "right_label", "noise"}
    (name,) = [key for key in report["frechet"] if key.startswith("FD (")]
    assert report["frechet"][name]["reconstructions_to_train"] is not None


def test_scores_are_eq_6_of_the_kept_features(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    config = work.config.evaluation.score
    banks = load_file(scored_run / "features" / "features.safetensors")
    found = load_file(scored_run / "features" / "ood_features.safetensors")
    table = pq.read_table(scored_run / "evaluation" / "scores.parquet").to_pandas()
    assert config.normalize and config.k == 3

    def unit(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)

    known, outliers = unit(banks["id_features"]), unit(banks["outlier_features"])
    for name, rows in table.groupby("set"):
        queries = unit(found[name])
        to_id, to_outliers = (
            np.sort(np.linalg.norm(queries[:, None] - bank[None], axis=2), axis=1)[:, :3]
            for bank in (known, outliers)
        )
        np.testing.assert_allclose(rows["distance"], (to_id**2).sum(1), atol=1e-5)
        # an outlier votes if fewer than k of both banks are nearer
        merged = np.sort(np.concatenate([to_id, to_outliers], axis=1), axis=1)[:, 2:3]
        np.testing.assert_array_equal(rows["votes"], (to_outliers <= merged).sum(1))
        np.testing.assert_allclose(rows["total"], rows["distance"] + config.alpha * rows["votes"])


def test_the_report_names_seeds_networks_and_configuration(scored_run: Path, compared: Workspace) -> None:
    def report(folder: Path) -> dict[str, Any]:
        return json.loads((folder / "evaluation" / "report.json").read_text())

    path = scored_run.parent / "tiny.yaml"
    own = report(scored_run)
    parts = ("run", "labels", "diffusion", "outliers", "evaluation", "encoder", "detector")
    assert own["seeds"] == dict.fromkeys(parts, 0)
    assert own["config_sha256"] == tree_hash(load_config(path).model_dump(mode="json"))
    assert list(own["frechet"]) == ["FD (SimCLR small)"]
    (name,) = report(compared.folder)["frechet"]
    assert name.startswith("FD (folder:") and name.endswith("taught small)")


def test_a_stop_before_a_control_leaves_no_report(copied: Workspace) -> None:
    shutil.rmtree(copied.folder / "evaluation")
    assert evaluation.make(replace(copied, should_stop=lambda: True)) is None
    assert not list((copied.folder / "evaluation").iterdir())
    assert set(evaluation.make(copied) or {}) == {"auroc_near", "auroc_validation"}
