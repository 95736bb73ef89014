from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from sdviz.detection import metrics
from sdviz.evaluation import read_report
from sdviz.pipeline import Workspace

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
