from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from streamlit.testing.v1 import AppTest

from sdviz.bundle import Bundle
from sdviz.config.tree import TuningConfig
from sdviz.evaluation import BaselineScores, Evaluation, baseline_report, baseline_table
from sdviz.evaluation.report import Trial
from tests.tiny_bundle import with_parts

RESULTS = "pages/6_Results.py"
BLEND = 0.7
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Files = dict[str, Callable[[], str]]
METHODS = {
    "knn": "kNN",
    "knn+tuned": "kNN, tuned",
    "msp": "MSP",
    "dn2": "DN2",
    "rot": "Rot",
    "png_size": "PNG size",
}


def put_methods(folder: Path, aside: Path) -> pd.DataFrame:
    """Adds methods that score at random to a saved bundle; returns their scores."""
    whole = Bundle.load(folder, "cpu")
    parts = {name: Path(shutil.copy(path, aside)) for name, path in whole.parts.items()}
    report = json.loads(parts["report.json"].read_text())
    ours = Evaluation(report, pq.read_table(parts["scores.parquet"]))
    names = np.array(ours.scores["set"].to_pylist())
    others = []
    for i, (key, title) in enumerate(METHODS.items()):
        rng = np.random.default_rng(i)
        columns = {n: rng.normal(0.3 * i * (n != "test"), 1, int((names == n).sum())) for n in np.unique(names)}
        settings = {"k": 3} if key.startswith("knn") else {}
        trials = (
            (Trial(settings={"k": 50}, value=0.6), Trial(settings={"k": 3}, value=0.7)) if "+" in key else ()
        )
        others.append(BaselineScores(key, title, settings, columns, trials))
    report["baselines"] = {one.key: baseline_report(ours, one, 20, 0) for one in others}
    report["tuning"] = TuningConfig(trials=2).model_dump(mode="json")
    parts["report.json"].write_text(json.dumps(report))
    table = baseline_table(ours, others)
    parts["baselines.parquet"] = aside / "baselines.parquet"
    pq.write_table(table, parts["baselines.parquet"])
    with_parts(whole, parts).save(folder)
    return table.to_pandas()


def auroc(table: pd.DataFrame, key: str, name: str) -> float:
    known, ood = (table[key][table["set"] == one] for one in ("test", name))
    return 100 * float(roc_auc_score(np.repeat([0, 1], [len(known), len(ood)]), np.r_[known, ood]))


def chart_of(at: AppTest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    return found


def rows_of(at: AppTest) -> list[list[str]]:
    (body,) = [
        one.proto.body for one in at.get("html") if "resulttable" in one.proto.body and "<td" in one.proto.body
    ]
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", body)
    return [
        [re.sub(r"<small>.*?</small>|<[^>]+>", "", c) for c in re.findall(r"<t[hd].*?</t[hd]>", line)]
        for line in lines
    ]


def test_methods_stand_next_to_ours(full_bundle: Full, open_page: Open, files: Files, tmp_path: Path) -> None:
    folder = full_bundle(blend=BLEND)
    at = open_page(RESULTS, {"results_view": "Methods"})
    assert any("measured without other methods" in one.value for one in at.markdown)
    table = put_methods(folder, tmp_path)
    at = open_page(RESULTS, {"results_view": "Methods"})
    assert not at.exception
    rows = rows_of(at)
    assert [row[0] for row in rows] == ["method", "SD outliers", *METHODS.values()]
    near = rows[0].index("shapes-novel")
    for row, key in zip(rows[2:], METHODS, strict=True):
        assert float(row[near].removeprefix("▲ ")) == pytest.approx(
            auroc(table, key, "shapes-novel"), abs=0.0051
        )
    # below a name, what is not as its authors have it
    text = next(one.proto.body for one in at.get("html") if "resulttable" in one.proto.body)
    assert "kNN<small>k = 3</small>" in text and "kNN, tuned<small>k = 3, best of 2 trials</small>" in text
    assert "MSP</td>" in text
    assert any("up to 2 settings on the validation sets" in one.value for one in at.caption)
    # a wide table scrolls in a box of its own, and a mark stays beside its number
    body = next(one.proto.body for one in at.get("html") if "▲" in one.proto.body)
    assert body.count('<div class="resultbox"') == body.count("<table") == 1
    assert len(re.findall(r'<span class="whole">▲ [\d.]+</span>', body)) == len(rows[0]) - 1
    # the best of each column is marked, once
    for column in range(1, len(rows[0])):
        values = [float(row[column].removeprefix("▲ ")) for row in rows[1:]]
        marked = [i for i, row in enumerate(rows[1:]) if row[column].startswith("▲")]
        assert len(marked) == 1
        assert values[marked[0]] == max(values)
    # ours and the best four of the others are drawn, and each says its area
    names = [line["name"] for line in chart_of(at)]
    best = sorted(METHODS, key=lambda key: -auroc(table, key, "shapes-novel"))[:4]
    assert {one.split(":")[0] for one in names} == {"chance", "SD outliers", *(METHODS[key] for key in best)}
    for key in best:
        assert f"{METHODS[key]}: AUROC {auroc(table, key, 'shapes-novel'):.2f} %" in names
    # another set, fewer methods
    at.selectbox(key="results_methods_set").set_value("digits").run()
    assert at.query_params["results_methods_set"] == "digits"
    again = open_page(RESULTS, {"results_view": "Methods", "results_methods_set": "digits"})
    assert again.selectbox(key="results_methods_set").value == "digits"
    at.multiselect(key="results_methods_drawn").set_value(["MSP"]).run()
    assert [line["name"] for line in chart_of(at)][2:] == [f"MSP: AUROC {auroc(table, 'msp', 'digits'):.2f} %"]
    assert at.multiselect(key="results_methods_drawn").value == ["MSP"]
    # the file has a row for each method and set
    text = next(make() for name, make in files.items() if name == "sdviz-other-methods.csv")
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#")]
    assert len(lines) == 1 + (1 + len(METHODS)) * 4
    assert lines[0].startswith('"method","set","role","AUROC"') and lines[0].endswith(',"settings"')
    assert sum('"k = 3, best of 2 trials"' in line for line in lines) == 4


def test_the_report_file_has_them(full_bundle: Full, open_page: Open, files: Files, tmp_path: Path) -> None:
    folder = full_bundle(blend=BLEND)
    table = put_methods(folder, tmp_path)
    open_page(RESULTS, {"results_view": "Report"})
    page = next(make() for name, make in files.items() if name.endswith(".html"))
    assert "<h2>Other methods</h2>" in page
    # drawn as on the page: the best of them; all stand in the table
    best = sorted(METHODS, key=lambda key: -auroc(table, key, "shapes-novel"))
    for i, key in enumerate(best):
        assert (f"{METHODS[key]}: AUROC {auroc(table, key, 'shapes-novel'):.2f} %" in page) == (i < 4)
        assert f"</i>{METHODS[key]}<" in page
