from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.methods import methods_of
from sdviz.bundle import Bundle
from sdviz.evaluation import Evaluation, baseline_report, baseline_table
from sdviz.evaluation.baselines import BaselineScores
from tests.tiny_bundle import with_parts


def test_methods_come_in_the_reports_order_with_their_scores(evidence: Evidence, tmp_path: Path) -> None:
    whole = evidence.bundle
    parts = {name: Path(shutil.copy(path, tmp_path)) for name, path in whole.parts.items()}
    report = json.loads(parts["report.json"].read_text())
    ours = Evaluation(report, pq.read_table(parts["scores.parquet"]))
    rng = np.random.default_rng(0)
    sizes = {name: len(one) for name, one in evidence.sets.items()}
    scores = {key: {name: rng.normal(size=n) for name, n in sizes.items()} for key in ("msp", "dn2")}
    others = [BaselineScores(key, key.upper(), {}, columns) for key, columns in scores.items()]
    report["baselines"] = {one.key: baseline_report(ours, one, 20, 0) for one in others}
    parts["report.json"].write_text(json.dumps(report))
    parts["baselines.parquet"] = tmp_path / "baselines.parquet"
    pq.write_table(baseline_table(ours, others), parts["baselines.parquet"])
    with_parts(whole, parts).save(tmp_path / "with")

    found = methods_of(Evidence(Bundle.load(tmp_path / "with", "cpu")))
    assert [(one.key, one.title) for one in found] == [("msp", "MSP"), ("dn2", "DN2")]
    for one in found:
        assert list(one.scores) == list(evidence.sets)
        for name, values in one.scores.items():
            assert np.array_equal(values, scores[one.key][name])
        known, ood = one.scores["test"], one.scores["digits"]
        auroc = (ood[:, None] > known[None]).mean()  # no ties
        assert one.result.results["digits"].auroc == pytest.approx(auroc)

    table = pq.read_table(parts["baselines.parquet"]).drop_columns(["dn2"])
    pq.write_table(table, parts["baselines.parquet"])
    with pytest.raises(MissingPart, match=r"baselines\.parquet cannot be read: .*dn2"):
        methods_of(Evidence(with_parts(whole, parts)))


def test_a_bundle_that_measured_no_other_method_says_how(evidence: Evidence) -> None:
    with pytest.raises(MissingPart, match=r"no baselines\.parquet.*`evaluation\.baselines`"):
        methods_of(evidence)
