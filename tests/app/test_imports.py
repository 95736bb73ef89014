from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from sdviz.analysis import Evidence
from sdviz.analysis.imports import add_import
from sdviz.bundle import Bundle
from sdviz.bundle.threshold import keep_threshold, make_threshold
from sdviz.evaluation import id_recall_threshold

RESULTS, EMBEDDINGS, FAILURES = "pages/6_Results.py", "pages/3_Embeddings.py", "pages/5_Failures.py"
VOTES = "pages/4_Sample_votes.py"
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Data = Callable[[AppTest], list[dict[str, Any]]]
Files = dict[str, Callable[[], str]]


def put_imports(folder: Path, aside: Path) -> pd.DataFrame:
    """Imports scores of two sets, as "theirs", and features of all images, as "net"; returns the scores."""
    evidence = Evidence(Bundle.load(folder, "cpu"))
    rng = np.random.default_rng(0)
    sets = {name: one.ids for name, one in evidence.sets.items()}
    frame = pd.DataFrame([(name, i) for name in ("test", "digits") for i in sets[name]], columns=["set", "id"])
    frame["score"] = rng.normal(frame["set"] == "digits", 1)
    frame.to_csv(aside / "scores.csv", index=False)
    add_import(evidence, aside / "scores.csv", "theirs")
    sets |= {"train": evidence.banks.id_ids, "SD outliers": evidence.banks.outlier_ids}
    ids = np.concatenate(list(sets.values()))
    names = np.concatenate([np.full(len(some), name) for name, some in sets.items()])
    np.savez(aside / "f.npz", id=ids, set=names, feature=rng.normal(size=(len(ids), 6)))
    add_import(evidence, aside / "f.npz", "net")
    return frame


def table_of(at: AppTest) -> list[list[str]]:
    bodies = [one.proto.body for one in at.get("html") if "resulttable" in one.proto.body]
    body = next(one for one in bodies if "<td" in one)
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", body)
    return [
        [re.sub(r"<small>.*?</small>|<[^>]+>", "", c) for c in re.findall(r"<t[hd].*?</t[hd]>", line)]
        for line in lines
    ]


def test_imports_stand_beside_ours_on_results(
    full_bundle: Full, open_page: Open, files: Files, tmp_path: Path
) -> None:
    folder = full_bundle(blend=0.7)
    at = open_page(RESULTS, {"results_view": "Methods"})
    assert any("python -m sdviz import FILE --bundle " in one.value for one in at.code)
    frame = put_imports(folder, tmp_path)
    at = open_page(RESULTS, {"results_view": "Methods"})
    rows = table_of(at)
    assert [row[0] for row in rows] == ["method", "SD outliers", "net", "theirs"]
    known, ood = (frame["score"][frame["set"] == name].to_numpy() for name in ("test", "digits"))
    auroc = 100 * (ood[:, None] > known).mean()
    theirs = dict(zip(rows[0], rows[3], strict=True))
    assert theirs.pop("digits").removeprefix("▲ ") == f"{auroc:.2f}"
    assert set(theirs.values()) == {"theirs", ""}
    # both are drawn on a set that both have, one on another
    spec = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    assert [one["name"].split(":")[0] for one in spec] == ["chance", "SD outliers", "net"]
    at.selectbox(key="results_methods_set").set_value("digits").run()
    spec = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    assert f"theirs: AUROC {auroc:.2f} %" in [one["name"] for one in spec]
    text = next(make() for name, make in files.items() if name == "sdviz-other-methods.csv")
    table = pd.read_csv(io.StringIO(text), comment="#", keep_default_na=False)
    (row,) = table[table["method"] == "theirs"].to_dict("records")
    assert (row["set"], row["settings"]) == ("digits", "imported from scores.csv")
    assert float(row["AUROC"]) == pytest.approx(auroc)
    # one that is gone while the page is open
    (tmp_path / "sdviz_runs" / ".imports").rename(tmp_path / "elsewhere")
    at.run()
    assert not at.exception
    assert any("measured without other methods" in one.value for one in at.markdown)


def test_a_damaged_import_is_said_and_left_out(full_bundle: Full, open_page: Open, tmp_path: Path) -> None:
    put_imports(full_bundle(blend=0.7), tmp_path)
    (file,) = (tmp_path / "sdviz_runs" / ".imports").rglob("net.parquet")
    file.write_bytes(b"")
    at = open_page(RESULTS, {"results_view": "Methods"})
    assert [row[0] for row in table_of(at)] == ["method", "SD outliers", "theirs"]
    (warning,) = at.warning
    assert warning.value.endswith("net.parquet is damaged: remove it, and import again")


def test_embeddings_show_their_features_and_colour_by_their_scores(
    full_bundle: Full, open_page: Open, component_data: Data, files: Files, tmp_path: Path
) -> None:
    frame = put_imports(full_bundle(), tmp_path)
    query: dict[str, str | list[str]] = {
        "embeddings_view": "net",
        "embeddings_method": "PCA",
        "embeddings_colour": "score of theirs",
        "embeddings_sets": ["train", "digits"],
    }
    at = open_page(EMBEDDINGS, query)
    data = next(one for one in component_data(at) if "frames" in one and "rgb" in one)
    assert [one["name"] for one in data["frames"]] == ["net"]
    assert len(data["ids"]) == 240 + 40
    groups = {one["name"]: one["count"] for one in data["groups"]}
    assert groups == {"with a score": 40, "not scored": 240}
    assert any("by its 6 features of net." in one.value for one in at.caption)
    points = np.frombuffer(base64.b64decode(data["points"]), "<f4").reshape(1, 280, 2)
    features = np.load(tmp_path / "f.npz")
    x = dict(zip(features["id"].tolist(), features["feature"], strict=True))
    unit = np.stack([x[one] / np.linalg.norm(x[one]) for one in data["ids"]])
    # the first axis of a PCA has the largest variance of all directions
    largest = np.linalg.svd(unit - unit.mean(0))[1][0] ** 2
    assert (points[0, :, 0] ** 2).sum() == pytest.approx(largest, rel=1e-3)
    text = next(make() for name, make in files.items() if name.endswith("-all.csv"))
    table = pd.read_csv(io.StringIO(text), comment="#").set_index("id")
    known = frame[frame["set"] == "digits"].set_index("id")["score"]
    assert np.allclose(table.loc[known.index, "score of theirs"], known)
    assert table.loc[table["set"] == "train", "score of theirs"].isna().all()
    # an image that is not among the points has no mark, and no distance to them
    one = str(Evidence(Bundle.load(tmp_path / "sdviz_checkpoints" / "full", "cpu")).sets["shapes-empty"].ids[0])
    assert not open_page(EMBEDDINGS, query | {"sample": one}).exception


def test_pages_start_with_the_threshold_that_the_bundle_keeps(
    full_bundle: Full, open_page: Open, component_data: Data
) -> None:
    bundle = Bundle.load(full_bundle(blend=0.7), "cpu")
    known = Evidence(bundle).id_set.total
    at = open_page(RESULTS)
    first = next(one for one in component_data(at) if "own" in one)
    assert first["t"] == first["own"] == id_recall_threshold(known)
    assert first["own_name"] == "95 % ID recall"
    for value, recall, name in ((None, 80.0, "80 % ID recall"), (1.25, None, "the bundle's threshold")):
        bundle.manifest = bundle.manifest.model_copy(update={"threshold": make_threshold(value, recall)})
        keep_threshold(bundle)
        wanted = 1.25 if recall is None else id_recall_threshold(known, recall)
        at.run()
        now = next(one for one in component_data(at) if "own" in one)
        assert (now["t"], now["own"], now["own_name"]) == (wanted, wanted, name)
        failures = " ".join(one.value for one in open_page(FAILURES).markdown)
        assert f"Threshold **{wanted:.4g}**" in failures
        text = " ".join(one.value for one in open_page(VOTES).markdown)
        means = "that the bundle keeps" if recall is None else "that 80 % of held-out ID images pass"
        assert f"the threshold of **{wanted:.4f}** {means}." in text
    # a number holds for the bundle's own k and alpha alone
    at = open_page(RESULTS, {"alpha": "0.5"})
    other = next(one for one in component_data(at) if "own" in one)
    assert other["own_name"] == "95 % ID recall" and other["own"] != 1.25
