from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc
from sklearn.neighbors import NearestNeighbors
from streamlit.testing.v1 import AppTest

from sdviz.bundle.manifest import MANIFEST, sha256
from sdviz.ui.results.curves import HISTOGRAM_CAPTION, ROC_CAPTION, precision_caption
from tests.bundle_folders import hash_of

RESULTS = "pages/6_Results.py"
# OOD features mixed with those of ID images: no figure is 100 %
BLEND = 0.7
SETS = ("shapes-novel", "shapes-empty", "digits", "shapes-novel-val")
ROLES = {
    "shapes-novel": "near-OOD",
    "shapes-empty": "far-OOD",
    "digits": "far-OOD",
    "shapes-novel-val": "validation",
}
# of a number with two decimals, a half rounded either way
ROUNDED = 0.005 + 1e-9
MODES = {"both": "total", "distance": "distance", "votes": "votes", "g_bin": "g_bin"}
MODE_TITLES = {
    "both": "distance + α · votes",
    "distance": "distance only",
    "votes": "votes only",
    "g_bin": "g_bin alone",
}
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]
Files = dict[str, Callable[[], str]]


def columns_of(folder: Path, mode: str = "both") -> dict[str, np.ndarray]:
    """The scores of every set, as scores.parquet has them; of g_bin the log-odds of an outlier."""
    table = pd.read_parquet(folder / "scores.parquet")
    table["g_bin"] = [float(outlier) - float(known) for known, outlier in table["g_bin"]]
    return {str(name): part[MODES[mode]].to_numpy() for name, part in table.groupby("set", sort=False)}


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def threshold(known: np.ndarray) -> float:
    """The smallest ID score with 95 % of ID scores at or below it."""
    return float(np.sort(known)[math.ceil(round(0.95 * len(known), 6)) - 1])


def measures(known: np.ndarray, ood: np.ndarray) -> list[float]:
    """AUROC, both FPR95, AUPR-in and -out in %, by scikit-learn and numpy."""
    is_ood = np.r_[np.zeros(len(known)), np.ones(len(ood))]
    scores = np.r_[known, ood].astype(float)
    fpr, tpr, _ = sklearn_roc(is_ood, scores, drop_intermediate=False)
    return [
        100 * float(value)
        for value in (
            roc_auc_score(is_ood, scores),
            (ood <= threshold(known)).mean(),
            fpr[np.argmax(tpr >= 0.95)],
            average_precision_score(1 - is_ood, -scores),
            average_precision_score(is_ood, scores),
        )
    ]


def show(at: AppTest, view: str) -> AppTest:
    at.segmented_control(key="results_view").set_value(view).run()
    assert not at.exception, at.exception
    return at


def texts(at: AppTest) -> str:
    return " | ".join(
        one.value for kind in ("markdown", "caption", "info", "warning") for one in getattr(at, kind)
    )


def link(at: AppTest, key: str) -> str:
    value = at.query_params.get(key, "")
    return value if isinstance(value, str) else value[-1]


def tables_in(text: str) -> list[list[list[tuple[str, str]]]]:
    """Every table of some HTML as rows of (text, small text below)."""
    found = []
    for part in text.split("<table")[1:]:
        tree = ElementTree.fromstring("<table" + part[: part.index("</table>")] + "</table>")
        rows = []
        for row in tree.iter("tr"):
            cells = []
            for cell in row:
                small = "".join("".join(s.itertext()) for s in cell.iter("small"))
                whole = "".join(cell.itertext())
                cells.append((whole.removesuffix(small), small))
            rows.append(cells)
        found.append(rows)
    return found


def tables(at: AppTest) -> list[list[list[tuple[str, str]]]]:
    """The HTML tables of the page."""
    return tables_in("".join(one.proto.body for one in at.get("html")))


def values(trace: dict[str, Any], axis: str) -> np.ndarray:
    """The numbers of one axis of a trace of plotly."""
    data = trace[axis]
    if not isinstance(data, dict):
        return np.asarray(data)
    flat = np.frombuffer(base64.b64decode(data["bdata"]), np.dtype(data["dtype"]))
    return flat.reshape([int(n) for n in data["shape"].split(",")]) if "shape" in data else flat


def traces(at: AppTest, i: int = 0) -> dict[str, dict[str, Any]]:
    """The lines of a chart by name."""
    return {one.get("name", ""): one for one in json.loads(at.get("plotly_chart")[i].proto.spec)["data"]}


def check_name(name: str, begins: str, expected: float) -> None:
    """Checks that a name in a legend ends in that number of %."""
    assert name.startswith(f"{begins} ") and name.endswith(" %")
    assert float(name.removeprefix(begins).removesuffix("%")) == pytest.approx(expected, abs=ROUNDED)


def csv_of(files: Files, name: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(files[name]()), comment="#", keep_default_na=False)


def change_papers(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Lets `change` alter bundle.json and report.json of a saved bundle; its hash changes."""
    manifest, report = json.loads((folder / MANIFEST).read_text()), report_of(folder)
    change(manifest, report)
    (folder / "report.json").write_text(json.dumps(report))
    manifest["files"]["report.json"] = sha256(folder / "report.json")
    (folder / MANIFEST).write_text(json.dumps(manifest))


# --- metrics --------------------------------------------------------------------------------------


def check_metrics(table: list[list[tuple[str, str]]], expected: dict[str, dict[str, list[float]]]) -> None:
    """Checks that a table of metrics holds those numbers (set -> mode -> %), each to two decimals."""
    found: dict[str, dict[str, list[str]]] = {}
    name = ""
    for row in table[1:]:
        if len(row) == 1:
            continue
        name = row[0][0] or name
        found.setdefault(name, {})[row[1][0]] = [cell[0] for cell in row[3:]]
    modes = MODE_TITLES | {"both": "both"}
    sets = {one: by for one, by in found.items() if not one.startswith("mean")}
    assert list(sets) == list(expected)
    for one, by in expected.items():
        assert list(sets[one]) == [modes[mode] for mode in by]
        for mode, numbers in by.items():
            shown = sets[one][modes[mode]]
            assert all(len(v.partition(".")[2]) == 2 for v in shown)
            assert [float(v) for v in shown] == pytest.approx(numbers, abs=ROUNDED), (one, mode)


def test_every_metric_is_the_reports_and_scikit_learns(
    full_bundle: Full, open_page: Open, files: Files
) -> None:
    folder = full_bundle(blend=BLEND)
    report = report_of(folder)
    at = show(open_page(RESULTS), "Metrics")
    expected = {
        name: {
            mode: measures(columns_of(folder, mode)["test"], columns_of(folder, mode)[name]) for mode in MODES
        }
        for name in SETS
    }
    (table,) = tables(at)
    check_metrics(table, expected)
    assert {row[0][0] for row in table if len(row) == 1} == {"near-OOD", "far-OOD", "validation"}
    # the intervals are the report's, and each number is the report's as well
    for row in table:
        if len(row) > 1 and row[0][0] in SETS:
            stored = report["results"][row[0][0]]
            low, high = stored["modes"]["both"]["auroc_interval"]
            assert row[2][0] == str(stored["n"]) == "40"
            assert row[3] == (
                f"{100 * stored['modes']['both']['auroc']:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"
            )  # fmt: skip
    # the means count every set the same
    far = np.mean([expected["shapes-empty"]["both"], expected["digits"]["both"]], axis=0)
    (mean,) = [row for row in table if row[0][0] == "mean of 2 sets"]
    assert [float(cell[0]) for cell in mean[3:]] == pytest.approx(far.tolist(), abs=ROUNDED)
    for tile, (role, value) in zip(
        at.metric,
        (
            ("near-OOD", expected["shapes-novel"]["both"][0]),
            ("far-OOD", far[0]),
            ("validation", expected["shapes-novel-val"]["both"][0]),
        ),
        strict=True,
    ):
        assert tile.label == f"{'mean AUROC' if role == 'far-OOD' else 'AUROC'}, {role}"
        assert float(tile.value.removesuffix(" %")) == pytest.approx(value, abs=ROUNDED)
    assert "from report.json" in texts(at)
    # the file has them in full
    rows = csv_of(files, "sdviz-metrics.csv")
    for name in SETS:
        for mode, by in expected[name].items():
            (row,) = rows[(rows["set"] == name) & (rows["score by"] == MODE_TITLES[mode])].to_numpy()
            assert row[1] == ROLES[name]
            assert [float(row[4]), *(float(v) for v in row[7:])] == pytest.approx(by, abs=1e-9)
            low, high = report["results"][name]["modes"][mode]["auroc_interval"]
            assert [float(row[5]), float(row[6])] == pytest.approx([100 * low, 100 * high])
    head = files["sdviz-metrics.csv"]().splitlines()
    assert f"# bundle hash: {hash_of(folder)}" in head and "# k: 10" in head


def by_brute_force(folder: Path, k: int, alpha: float, normalize: bool) -> dict[str, np.ndarray]:
    """Eq. 6 of every set by scikit-learn's search."""
    banks, sets = load_file(folder / "features.safetensors"), load_file(folder / "ood_features.safetensors")

    def ready(features: np.ndarray) -> np.ndarray:
        wide = features.astype(np.float64)
        return wide / np.linalg.norm(wide, axis=1, keepdims=True) if normalize else wide

    known, outliers = ready(banks["id_features"]), ready(banks["outlier_features"])
    near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(known)
    both = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(np.concatenate([known, outliers]))
    found = {}
    for name in ("test", *SETS):
        rows = ready(sets[name])
        distance = (near.kneighbors(rows)[0] ** 2).sum(1)
        votes = (both.kneighbors(rows)[1] >= len(known)).sum(1)
        found[name] = distance + alpha * votes
    return found


def test_metrics_under_other_settings(full_bundle: Full, open_page: Open) -> None:
    folder = full_bundle(blend=BLEND)
    # 1. another alpha: distance and votes are those that were measured
    at = open_page(RESULTS, {"alpha": "0.3", "results_view": "Metrics"})
    assert "computed now for these settings" in texts(at)
    by = {mode: columns_of(folder, mode) for mode in ("distance", "votes", "g_bin")}
    both = {name: by["distance"][name] + 0.3 * by["votes"][name] for name in by["votes"]}
    expected = {
        name: {mode: measures(one["test"], one[name]) for mode, one in {"both": both, **by}.items()}
        for name in SETS
    }
    check_metrics(tables(at)[0], expected)
    # 2. another k, and features as they are
    for query, how in (
        ({"k": "3", "alpha": "0"}, (3, 0.0, True)),
        ({"k": "5", "alpha": "0.1", "unit": "0"}, (5, 0.1, False)),
    ):
        at = open_page(RESULTS, {**query, "results_view": "Metrics"})
        scores = by_brute_force(folder, *how)
        for row in tables(at)[0]:
            if len(row) > 1 and row[0][0] in SETS:
                auroc = measures(scores["test"], scores[row[0][0]])[0]
                assert float(row[3][0]) == pytest.approx(auroc, abs=0.006), (query, row[0])
    # the bundle's own again
    at.button(key="results_own").click().run()
    assert "from report.json" in texts(at)
    assert (link(at, "k"), link(at, "alpha"), link(at, "unit")) == ("", "", "")


def test_images_in_two_sets_are_told_of(full_bundle: Full, open_page: Open) -> None:
    folder = full_bundle(blend=BLEND)
    assert "pixel by pixel" not in texts(open_page(RESULTS, {"results_view": "Metrics"}))
    overlap = {"on_overlap": "drop", "copies": 0, "sets": {"digits": {"train": 1200, "test": 3}}}
    change_papers(folder, lambda manifest, report: report.update(overlap=overlap))
    assert (
        "Images that are in two sets, pixel by pixel, were left out of the first: 1,200 of digits in train,"
        " 3 of digits in test."
    ) in texts(open_page(RESULTS, {"results_view": "Metrics"}))


# --- histogram and curves -------------------------------------------------------------------------


def test_the_histogram_has_every_score(
    full_bundle: Full, open_page: Open, component_data: Read, files: Files
) -> None:
    folder = full_bundle(blend=BLEND)
    scores = columns_of(folder)
    at = open_page(RESULTS)
    for scale in ("Logarithmic", "Around the threshold", "Linear"):
        at.segmented_control(key="results_axis").set_value(scale).run()
        (data,) = component_data(at)
        assert data["own"] == data["t"] == threshold(scores["test"])
        assert [one["name"] for one in data["sets"]] == ["test", *SETS]
        assert [one["is_id"] for one in data["sets"]] == [True, False, False, False, False]
        edges = np.array(data["edges"])
        assert data["is_log"] == (scale == "Logarithmic")
        for one in data["sets"]:
            sent = np.frombuffer(base64.b64decode(one["scores"]))
            assert np.array_equal(sent, np.sort(scores[one["name"]]))
            inside = np.clip(sent, edges[0], edges[-1])
            assert one["counts"] == np.histogram(inside, edges)[0].tolist()
            assert sum(one["counts"]) == 40
    # few are drawn at first, every one is counted; the rest are one click away, and the file has what is drawn
    (pills,) = [one for one in at.button_group if one.label == "Sets drawn"]
    assert pills.value == ["test", "shapes-novel", "shapes-empty"]

    def check(names: list[str]) -> None:
        (data,) = component_data(at)
        assert [one["name"] for one in data["sets"]] == ["test", *SETS]
        assert [one["name"] for one in data["sets"] if one["drawn"]] == names
        rows = csv_of(files, "sdviz-scores-set-by-set.csv")
        assert [one.partition(" ")[0] for one in dict.fromkeys(rows["series"])] == names

    check(["test", "shapes-novel", "shapes-empty"])
    pills.set_value(["test", "digits"]).run()
    check(["test", "digits"])
    # the file of all scores is scores.parquet, and gives the report's AUROC
    rows, table = csv_of(files, "sdviz-all-scores.csv"), pd.read_parquet(folder / "scores.parquet")
    for column in ("set", "role", "id", "label", "votes"):
        assert rows[column].tolist() == table[column].tolist()
    for column in ("distance", "total"):
        assert np.array_equal(rows[column], table[column])
    known = rows["total"][rows["role"] == "id"].to_numpy()
    ood = rows["total"][rows["set"] == "digits"].to_numpy()
    reported = report_of(folder)["results"]["digits"]["modes"]["both"]["auroc"]
    assert measures(known, ood)[0] == pytest.approx(100 * reported, abs=1e-9)
    # the threshold of the link stands there
    at = open_page(RESULTS, {"t": "1.25"})
    assert (component_data(at)[0]["t"], component_data(at)[0]["own"]) == (1.25, threshold(scores["test"]))


def test_roc_and_precision_recall_are_scikit_learns(full_bundle: Full, open_page: Open, files: Files) -> None:
    folder = full_bundle(blend=BLEND)
    t = float(np.median(columns_of(folder)["shapes-novel"]))
    at = show(open_page(RESULTS, {"t": repr(t)}), "ROC")
    for mode, word in MODE_TITLES.items():
        at.segmented_control(key="results_roc_mode").set_value(word).run()
        scores, lines = columns_of(folder, mode), traces(at)
        for name in SETS:
            known, ood = scores["test"], scores[name]
            expected = measures(known, ood)[0]
            (line,) = [one for key, one in lines.items() if key.startswith(f"{name} (")]
            check_name(line["name"], f"{name} ({ROLES[name]}): AUROC", expected)
            x, y = values(line, "x"), values(line, "y")
            assert np.trapezoid(y, x) / 100 == pytest.approx(expected, abs=1e-9)
            is_ood = np.r_[np.zeros(len(known)), np.ones(len(ood))]
            fpr, tpr, _ = sklearn_roc(is_ood, np.r_[known, ood], drop_intermediate=False)
            points = set(zip((100 * fpr).round(6), (100 * tpr).round(6), strict=True))
            assert set(zip(x.round(6), y.round(6), strict=True)) <= points
            # the dot: where the threshold stands
            if mode == "both":
                dot = lines[f"{name} at the threshold"]
                assert values(dot, "x").tolist() == [pytest.approx(100 * (known > t).mean())]
                assert values(dot, "y").tolist() == [pytest.approx(100 * (ood > t).mean())]
            else:
                assert f"{name} at the threshold" not in lines
    rows = csv_of(files, "sdviz-roc-g-bin-alone.csv")
    line = rows[rows["series"].str.startswith("digits")]
    assert np.allclose(line.iloc[:, 1], values(traces(at)[line["series"].iloc[0]], "x"))

    show(at, "Precision-recall")
    scores = columns_of(folder)
    for positive, kind, at_index in (("OOD", "out", 4), ("ID", "in", 3)):
        at.segmented_control(key="results_pr_positive").set_value(positive).run()
        lines = traces(at)
        for name in SETS:
            expected = measures(scores["test"], scores[name])[at_index]
            (line,) = [one for key, one in lines.items() if key.startswith(f"{name} (")]
            check_name(line["name"], f"{name} ({ROLES[name]}): AUPR-{kind}", expected)
            x, y = values(line, "x"), values(line, "y")
            assert -(np.diff(x) * y[:-1]).sum() / 100 == pytest.approx(expected, abs=1e-9)
            assert set(values(lines[f"chance, {name}"], "y")) == {50.0}


# --- bundles that lack parts ----------------------------------------------------------------------


def test_without_a_bundle(open_page: Open) -> None:
    at = open_page(RESULTS)
    assert "There is no trained network on this machine yet" in texts(at)
    assert "how far the scores of ID and OOD images lie apart" in texts(at)
    assert "python -m sdviz run" in at.code[0].value


VIEWS = (
    "Histogram", "ROC", "Precision-recall", "Metrics", "Controls", "k x α", "S x w", "Paper's tables",
    "Compare", "Report",
)  # fmt: skip


def test_without_a_detector(full_bundle: Full, open_page: Open) -> None:
    full_bundle(detector=False)
    at = open_page(RESULTS)
    for view in VIEWS:
        show(at, view)
        assert "Traceback" not in texts(at)
        if view in ("S x w", "Paper's tables", "Compare"):
            continue
        assert "has no detector" in texts(at) or "bundle has no" in texts(at), view
        assert "how far the scores of ID and OOD images lie apart" in texts(at), view
        assert at.code[0].value


def test_one_set_and_one_sample_a_set(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    # 1. one test set: no validation set, one curve
    folder = full_bundle(sets=("digits",), blend=BLEND)
    at = open_page(RESULTS)
    assert [one["name"] for one in component_data(at)[0]["sets"]] == ["test", "digits"]
    for view in VIEWS:
        show(at, view)
        if view == "Metrics":
            scores = {mode: columns_of(folder, mode) for mode in MODES}
            expected = {m: measures(one["test"], one["digits"]) for m, one in scores.items()}
            check_metrics(tables(at)[0], {"digits": expected})
            assert "mean of" not in str(tables(at))
        if view == "k x α":
            assert "This bundle has no validation set" in texts(at)
            assert not at.get("plotly_chart")


def test_one_sample_a_set(full_bundle: Full, open_page: Open, component_data: Read, files: Files) -> None:
    folder = full_bundle(n_per_set=1)
    scores = columns_of(folder)
    at = open_page(RESULTS)
    assert [sum(one["counts"]) for one in component_data(at)[0]["sets"]] == [1] * 5
    for view in VIEWS:
        show(at, view)
        if view == "Metrics":
            for row in tables(at)[0]:
                if row[0][0] in SETS:
                    assert float(row[3][0]) == measures(scores["test"], scores[row[0][0]])[0]
    (name,) = [one for one in files if one.startswith("sdviz-report-")]
    assert "Worst failures" in files[name]()


@pytest.mark.parametrize("view", ["x", "Metrics"])
def test_nonsense_in_the_link_is_harmless(full_bundle: Full, open_page: Open, view: str) -> None:
    full_bundle(blend=BLEND)
    query = {"results_view": view, "t": "abc", "k": "q", "alpha": "-3", "unit": "7", "results_axis": "y"}
    at = open_page(RESULTS, query)
    assert at.segmented_control(key="results_view").value == ("Histogram" if view == "x" else view)
    assert "Traceback" not in texts(at)


# --- controls and maps ----------------------------------------------------------------------------


def put_controls(manifest: dict[str, Any], report: dict[str, Any]) -> None:
    """One control that is 1 to 4 points behind on the first three sets, and ahead on the last."""
    results, differences = json.loads(json.dumps(report["results"])), {}
    for i, (name, one) in enumerate(results.items()):
        differences[name] = {}
        for mode, found in one["modes"].items():
            d = 0.01 * (i + 1) if i < 3 else -0.02
            found["auroc"] = report["results"][name]["modes"][mode]["auroc"] - d
            differences[name][mode] = {"auroc": d, "interval": [d - 0.005, d + 0.005]}
    report["controls"] = {
        "noise": {
            **{key: report[key] for key in ("bank", "score", "id_set", "thresholds", "means")},
            "results": results,
            "differences": differences,
        }
    }


def test_controls_stand_next_to_the_method(full_bundle: Full, open_page: Open, files: Files) -> None:
    folder = full_bundle(blend=BLEND)
    at = open_page(RESULTS, {"results_view": "Controls"})
    assert "This bundle was measured without controls" in texts(at)
    change_papers(folder, put_controls)
    at = open_page(RESULTS, {"results_view": "Controls"})
    report = report_of(folder)
    for mode, word in MODE_TITLES.items():
        at.segmented_control(key="results_control_mode").set_value(word).run()
        (heat,) = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
        assert values(heat, "z").ravel().tolist() == pytest.approx([1, 2, 3, -2])
        assert list(heat["x"]) == list(SETS)
        (table,) = tables(at)
        assert [c[0] for c in table[0]] == ["set", "SD outliers", "noise alone"]
        for row, name, d in zip(table[1:], SETS, (1, 2, 3, -2), strict=True):
            own = 100 * report["results"][name]["modes"][mode]["auroc"]
            assert row[0] == (name, ROLES[name])
            assert float(row[1][0]) == pytest.approx(own, abs=ROUNDED)
            assert float(row[2][0]) == pytest.approx(own - d, abs=ROUNDED)
            assert row[2][1] == f"{d:+.2f} ({d - 0.5:+.2f} to {d + 0.5:+.2f})"
    rows = csv_of(files, "sdviz-controls.csv")
    assert len(rows) == 16 and rows["difference"].tolist() == pytest.approx(np.repeat([1, 2, 3, -2], 4))


def test_the_score_between_no_training_and_training(full_bundle: Full, open_page: Open, files: Files) -> None:
    folder = full_bundle(blend=BLEND)
    assert "Between no training" not in texts(open_page(RESULTS, {"results_view": "Controls"}))
    shifts = {"0": 0.02, "0.5": 0.03, "1": 0.0}

    def put_curve(manifest: dict[str, Any], report: dict[str, Any]) -> None:
        manifest["config"]["detector"]["interpolation"] = 0.5
        for share, shift in shifts.items():
            results = {name: dict(one["modes"]["both"]) for name, one in report["results"].items()}
            means = {role: dict(modes["both"]) for role, modes in report["means"].items()}
            for one in (*results.values(), *means.values()):
                one["auroc"] -= shift
            report["interpolation"][share] = {"results": results, "means": means}

    change_papers(folder, put_curve)
    report = report_of(folder)
    at = open_page(RESULTS, {"results_view": "Controls"})
    assert not at.exception
    lines = traces(at)
    assert list(lines)[:3] == ["near-OOD", "far-OOD, mean of 2 sets", "validation"]
    for name, role in (("near-OOD", "near"), ("far-OOD, mean of 2 sets", "far")):
        assert values(lines[name], "x").tolist() == [0, 0.5, 1]
        mean = report["means"][role]["both"]["auroc"]
        expected = [100 * (mean - shift) for shift in shifts.values()]
        assert values(lines[name], "y").tolist() == pytest.approx(expected)
    # the mark: at the share of this bundle's detector
    spec = json.loads(at.get("plotly_chart")[0].proto.spec)
    assert [one["x0"] for one in spec["layout"]["shapes"]] == [0.5]
    (table,) = tables(at)
    assert [cell[0] for cell in table[0]] == ["set", "a = 0", "a = 0.5", "a = 1"]
    for row, name in zip(table[1:], SETS, strict=True):
        found = report["results"][name]["modes"]["both"]
        low, high = found["auroc_interval"]
        for cell, shift in zip(row[1:], shifts.values(), strict=True):
            assert float(cell[0]) == pytest.approx(100 * (found["auroc"] - shift), abs=ROUNDED)
            assert cell[1] == f"{100 * low:.2f} to {100 * high:.2f}"
    rows = csv_of(files, "sdviz-between-no-training-and-the-trained-weights.csv")
    assert len(rows) == 12 and rows["share of the trained weights"].tolist() == [0, 0.5, 1] * 4
    page = show(at, "Report")
    assert not page.exception
    (name,) = [one for one in files if one.startswith("sdviz-report-")]
    assert "<h2>Between no training and the trained weights</h2>" in files[name]()


def test_the_map_over_k_and_alpha_is_of_the_validation_set(
    full_bundle: Full, open_page: Open, files: Files
) -> None:
    folder = full_bundle(blend=BLEND)
    at = open_page(RESULTS, {"results_view": "k x α", "t": "1.5"})
    assert not at.toggle(key="results_on_test").value
    assert not at.warning

    def check(name: str) -> np.ndarray:
        (heat,) = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
        z = values(heat, "z")
        ks, alphas = [int(k) for k in heat["x"]], [float(a) for a in heat["y"]]
        assert {1, 10, 50} < set(ks) and {0.0, 0.01, 1.0} < set(alphas)
        assert z.shape == (len(alphas), len(ks))
        for j, k in enumerate(ks):
            distance = by_brute_force(folder, k, 0.0, True)
            votes = {one: both - distance[one] for one, both in by_brute_force(folder, k, 1.0, True).items()}
            for i, alpha in enumerate(alphas):
                scores = {one: distance[one] + alpha * votes[one] for one in distance}
                assert z[i, j] == pytest.approx(measures(scores["test"], scores[name])[0], abs=0.1), (k, alpha)
        file = f"sdviz-auroc-over-k-and-alpha-{name}.csv"
        assert f"# measured_on: {name}\n" in files[file]()
        # line by line: k, alpha, value
        assert csv_of(files, file)["value"].tolist() == z.ravel().tolist()
        return z

    z = check("shapes-novel-val")
    assert "on shapes-novel-val (validation) against held-out ID images" in texts(at)
    # how much of a difference is noise, and where the settings in force stand
    low, high = report_of(folder)["results"]["shapes-novel-val"]["modes"]["both"]["auroc_interval"]
    told = f"{100 * low:.2f} to {100 * high:.2f} % on shapes-novel-val, {100 * (high - low):.1f} points"
    assert told in texts(at)

    def framed() -> set[tuple[str, str]]:
        chart = json.loads(at.get("plotly_chart")[0].proto.spec)
        (heat,) = chart["data"]
        places = {(int(one["x0"] + 0.5), int(one["y0"] + 0.5)) for one in chart["layout"]["shapes"]}
        return {(heat["x"][column], heat["y"][row]) for column, row in places}

    assert framed() == {("10", "0.01")}
    # the best of it, on every page; another score has another threshold
    i, j = np.unravel_index(z.argmax(), z.shape)
    k, alpha = (1, 2, 5, 10, 20, 50)[j], (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)[i]
    button = at.button(key="results_take_best")
    assert button.label == f"Use k = {k}, α = {alpha:g} on every page"
    assert f"The highest here: {z.max():.2f} %. In force: k = 10, α = 0.01, the bundle's own" in texts(at)
    button.click().run()
    assert (link(at, "k"), link(at, "alpha"), link(at, "t")) == (str(k), f"{alpha:g}", "")
    assert at.button(key="results_take_best").disabled
    assert framed() == {(str(k), f"{alpha:g}")}

    # a test set only when asked for, with a warning, and nothing to take over from it
    at.toggle(key="results_on_test").set_value(True).run()
    assert at.selectbox(key="results_test_set").options == ["shapes-novel", "shapes-empty", "digits"]
    (warning,) = at.warning
    assert warning.value.startswith("**shapes-novel is a test set.** If you choose k or α by this map")
    assert "results_take_best" not in [b.key for b in at.button]
    other = check("shapes-novel")
    assert not np.allclose(other, z)


def test_the_map_over_recipes_holds_means_of_runs(full_bundle: Full, open_page: Open) -> None:
    def recipe(s: int, w: float, seed: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        def change(manifest: dict[str, Any], report: dict[str, Any]) -> None:
            manifest["config"]["outliers"] |= {"start_timestep": s, "guidance_scale": w}
            manifest["config"]["detector"]["seed"] = seed

        return change

    first = full_bundle("a", blend=BLEND)
    change_papers(first, recipe(100, 2.0, 0))
    at = open_page(RESULTS, {"results_view": "S x w"})
    assert "Of 1 bundle on this machine 1 counts here, with 1 recipe: this one." in texts(at)
    assert at.code[0].value.startswith(
        "python -m sdviz run configs/shapes.yaml --from RUN --set outliers.start_"
    )

    second, third = full_bundle("b", blend=0.6), full_bundle("c", blend=0.8)
    change_papers(second, recipe(100, 2.0, 1))
    change_papers(third, recipe(200, 4.0, 0))
    # of another family: it stays out, and is counted
    fourth = full_bundle("d", blend=0.5)
    change_papers(fourth, lambda manifest, report: manifest["config"]["detector"].update(epochs=9))

    def mean(folder: Path, *names: str) -> float:
        scores = columns_of(folder)
        return float(np.mean([measures(scores["test"], scores[name])[0] for name in names]))

    at = open_page(RESULTS, {"results_view": "S x w"})
    for role, names, is_test in (
        ("validation", ["shapes-novel-val"], False),
        ("near-OOD", ["shapes-novel"], True),
        ("far-OOD", ["shapes-empty", "digits"], True),
    ):
        at.segmented_control(key="results_recipe_role").set_value(role).run()
        (heat,) = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
        assert (list(heat["x"]), list(heat["y"])) == (["100", "200"], ["2", "4"])
        two = [mean(first, *names), mean(second, *names)]
        z = values(heat, "z").astype(float)
        expected = [[np.mean(two), np.nan], [np.nan, mean(third, *names)]]
        assert np.allclose(z, expected, equal_nan=True)
        (cells,) = tables(at)
        assert [[text for text, _ in row] for row in cells] == [
            ["S", "w", "AUROC (%)", "± over seeds", "runs"],
            ["100", "2", f"{np.mean(two):.2f}", f"{np.std(two, ddof=1):.2f}", "2"],
            ["200", "4", f"{mean(third, *names):.2f}", "", "1"],  # no ± of one run, nor a word for none
        ]
        assert bool(at.warning) == is_test
        assert "up to 2 seeds in a cell" in texts(at)
        assert "1 other bundle on shapes left out" in texts(at)


# --- the paper's tables ---------------------------------------------------------------------------


def paper_cells(table: list[list[tuple[str, str]]]) -> dict[tuple[str, str], tuple[str, tuple[str, str]]]:
    """(row, column) -> the paper's figure and ours, as they stand on the page."""
    columns = [cell[0] for cell in table[0][1:]]
    assert [cell[0] for cell in table[1][1:]] == ["paper", "ours"] * len(columns)
    return {
        (row[0][0], column): (row[1 + 2 * j][0], row[2 + 2 * j])
        for row in table[2:]
        for j, column in enumerate(columns)
    }


def test_the_papers_tables_stand_alone_without_a_cifar10_bundle(
    full_bundle: Full, open_page: Open, files: Files
) -> None:
    full_bundle(blend=BLEND)
    at = open_page(RESULTS, {"results_view": "Paper's tables"})
    found = [paper_cells(table) for table in tables(at)]
    assert [len(one) for one in found] == [48, 15, 15, 3]
    assert all(ours == ("", "") for one in found for _, ours in one.values())
    first, second, third, fourth = found
    sd, multi = "SD outliers (the paper), ViT-B/16", "Multi-class AD, ViT-B/16"
    assert [first[sd, column][0] for column in ("CIFAR-100", "SVHN", "LSUN")] == ["98.0", "99.9", "99.9"]
    assert [first[multi, column][0] for column in ("CIFAR-100", "SVHN", "LSUN")] == ["96.7", "99.9", "99.3"]
    # what the paper leaves empty is empty, not 0
    assert [first["SSD", column][0] for column in ("CIFAR-100", "SVHN", "LSUN")] == ["89.6", "", ""]
    assert second["w = 3", "S = 150"][0] == "98.0"
    assert third["FID of the outliers", "S = 200"][0] == "7.59"
    assert "Yoon et al.; ID is CIFAR-10" in texts(at)
    assert "No bundle on this machine was trained on `cifar10`" in texts(at)
    rows = csv_of(files, "sdviz-table-1.csv")
    assert set(rows["ours"]) == {""} and rows["paper"].iloc[-3:].tolist() == ["98.2", "", ""]


def test_ours_stands_next_to_measured_cells_only(full_bundle: Full, open_page: Open, files: Files) -> None:
    names = {"shapes-novel": "cifar100", "digits": "svhn", "shapes-empty": "places_lsun9"}

    def as_cifar10(seed: int, s: int = 100) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        def change(manifest: dict[str, Any], report: dict[str, Any]) -> None:
            manifest["dataset"] = "cifar10"
            manifest["config"]["outliers"] |= {"start_timestep": s, "guidance_scale": 2.0}
            manifest["config"]["detector"]["seed"] = seed
            for old, new in names.items():
                report["results"][new] = report["results"].pop(old)

        return change

    folders = [full_bundle("a", blend=BLEND), full_bundle("b", blend=0.6)]
    expected: dict[str, list[float]] = {name: [] for name in SETS}
    distance_only = []
    for seed, folder in enumerate(folders):
        scores = columns_of(folder)
        for name in SETS:
            expected[name].append(measures(scores["test"], scores[name])[0])
        by_distance = columns_of(folder, "distance")
        distance_only.append(measures(by_distance["test"], by_distance["shapes-novel"])[0])
        change_papers(folder, as_cifar10(seed))
    full_bundle("c", blend=0.5)  # of shapes: it counts nowhere
    # another S, in none of the paper's tables
    other = full_bundle("d", blend=0.7)
    of_other = {name: measures(columns_of(other)["test"], columns_of(other)[name])[0] for name in SETS}
    change_papers(other, as_cifar10(0, 120))

    at = open_page(RESULTS, {"results_view": "Paper's tables"})
    *found, others = tables(at)
    first, second, third, fourth = (paper_cells(table) for table in found)
    own = "network of ours: small"
    alone, at_2 = f"SD outliers, {own}", f"w = 2, {own}"
    near = expected["shapes-novel"]

    def text(numbers: list[float]) -> str:
        return f"{np.mean(numbers):.2f} ± {np.std(numbers, ddof=1):.2f}"

    measured = {
        (1, alone, "CIFAR-100"): text(near),
        (1, alone, "SVHN"): text(expected["digits"]),
        (2, at_2, "S = 100"): text(near),
        (3, f"AUROC (%), distance only, {own}", "S = 100"): text(distance_only),
        (3, f"AUROC (%), distance + vote, {own}", "S = 100"): text(near),
    }
    shown = {
        (number, *cell): ours[0]
        for number, one in enumerate((first, second, third, fourth), 1)
        for cell, (_, ours) in one.items()
        if ours != ("", "")
    }
    assert shown == measured
    assert first[alone, "CIFAR-100"] == ("", (text(near), "2 runs, 40 of 10,000 images"))
    # what the paper has not stands apart, by its own name, and ± is over the runs of one S and w
    assert [text for text, _ in others[0]] == ["set", "S = 100, w = 2", "S = 120, w = 2"]
    cells = {row[0][0]: row[1:] for row in others[1:]}
    assert set(cells) == {"places_lsun9", "shapes-novel-val (validation)"}
    at_100, at_120 = cells["places_lsun9"]
    assert at_100 == (text(expected["shapes-empty"]), "2 runs, 40 images")
    assert at_120[0] == f"{of_other['shapes-empty']:.2f}" and "run" not in at_120[1]
    rows = csv_of(files, "sdviz-measured-here-on-sets-that-the-paper-has-not.csv")
    places = rows[rows["set"] == "places_lsun9"]
    assert places[["S", "w", "ours_runs"]].to_numpy().tolist() == [[100, 2.0, 2], [120, 2.0, 1]]
    assert places["ours_sd"].tolist()[1] == ""
    rows = csv_of(files, "sdviz-table-2.csv")
    ours = rows[rows["ours"] != ""]
    assert ours[["row", "column"]].to_numpy().tolist() == [[at_2, "S = 100"]]
    assert float(ours["ours"].iloc[0]) == pytest.approx(np.mean(near))
    assert ours["paper"].iloc[0] == ""


# --- two bundles, and the report ------------------------------------------------------------------


def test_two_bundles_side_by_side(full_bundle: Full, open_page: Open, files: Files) -> None:
    def other(manifest: dict[str, Any], report: dict[str, Any]) -> None:
        manifest["config"]["outliers"]["start_timestep"] = 250
        manifest["config"]["detector"]["epochs"] = 9

    folders = {"one": full_bundle("one", blend=BLEND), "two": full_bundle("two", blend=0.6, n_per_set=30)}
    change_papers(folders["two"], other)
    full_bundle("without", detector=False)
    at = open_page(RESULTS, {"results_view": "Compare"})
    assert set(at.multiselect(key="results_bundles").value) == {"one", "two"}
    at.multiselect(key="results_bundles").set_value(["one", "two"]).run()
    (table,) = tables(at)
    assert [cell[0] for cell in table[0]] == ["", "one", "two"]
    rows = {row[0][0]: [cell[0] for cell in row[1:]] for row in table[1:]}
    assert rows["S, w"] == ["100, 4", "250, 4"]
    assert rows["k, α"] == ["10, 0.01", "10, 0.01"]
    assert rows["hash"] == [hash_of(folder)[:10] for folder in folders.values()]
    for i, folder in enumerate(folders.values()):
        scores = columns_of(folder)
        for name in SETS:
            expected = measures(scores["test"], scores[name])
            low, high = report_of(folder)["results"][name]["modes"]["both"]["auroc_interval"]
            auroc, _, interval = rows[f"AUROC, {name}"][i].partition(" ")
            assert float(auroc) == pytest.approx(expected[0], abs=ROUNDED)
            assert interval == f"({100 * low:.2f} to {100 * high:.2f})"
            accepted = rows[f"FPR95 (OOD accepted at 95 % ID recall), {name}"][i]
            flagged = rows[f"FPR95 (ID flagged at 95 % OOD recall), {name}"][i]
            assert float(accepted) == pytest.approx(expected[1], abs=ROUNDED)
            assert float(flagged) == pytest.approx(expected[2], abs=ROUNDED)
    # ROC on one set of both, and what differs
    at.selectbox(key="results_common").select("digits").run()
    for name, folder in folders.items():
        scores = columns_of(folder)
        expected_auroc = measures(scores["test"], scores["digits"])[0]
        (line,) = [one for key, one in traces(at).items() if key.startswith(f"{name}: ")]
        check_name(line["name"], f"{name}: AUROC", expected_auroc)
        assert np.trapezoid(values(line, "y"), values(line, "x")) / 100 == pytest.approx(expected_auroc)
    differ = at.dataframe[0].value.set_index("key")
    assert differ.loc["outliers.start_timestep"].tolist() == ["100", "250"]
    assert differ.loc["detector.epochs"].tolist() == ["5", "9"]
    assert set(differ.index) == {"outliers.start_timestep", "detector.epochs"}
    written = csv_of(files, "sdviz-bundles-compared.csv")
    assert written.iloc[:, 0].tolist() == list(rows)
    assert written["two"].tolist() == [by[1] for by in rows.values()]
    for folder in folders.values():
        assert hash_of(folder) in files["sdviz-bundles-compared.csv"]()
    # one without a detector beside them: empty, never the other's
    at.multiselect(key="results_bundles").set_value(["one", "without"]).run()
    rows = {row[0][0]: [cell[0] for cell in row[1:]] for row in tables(at)[0][1:]}
    assert rows["k, α"][1] == "no detector" and rows["AUROC, digits"][1] == ""


def test_the_report_is_one_file_with_everything(full_bundle: Full, open_page: Open, files: Files) -> None:
    folder = full_bundle(blend=BLEND)
    change_papers(folder, put_controls)
    scores = columns_of(folder)
    t = float(np.quantile(scores["digits"], 0.3))
    at = open_page(RESULTS, {"results_view": "Report", "t": repr(t)})
    assert f"threshold {t:.6g}" in texts(at)
    digest = hash_of(folder)
    page = files[f"sdviz-report-full-{digest[:8]}.html"]()

    # 1. nothing from outside: every src, href and url() points into the file itself
    pointers = re.findall(
        r"""(?:\b(?:src|srcset|href|data|action|poster)\s*=\s*["']?|url\(["']?)([^"'\s>)]*)""", page
    )
    assert pointers
    assert {p[:11] if p.startswith("data:") else p[:1] for p in pointers} <= {"data:image/", "#"}
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import", page)
    # 2. where it comes from
    assert digest in page and f"{t!r}; above is called OOD" in page
    for part in ("trained on", "configuration", "seeds", "versions", "Resolved configuration"):
        assert part in page
    config = json.loads(html.unescape(page[page.index("<pre>") + 5 : page.index("</pre>")]))
    assert config == json.loads((folder / MANIFEST).read_text())["config"]
    # 3. the numbers
    found = tables_in(page)
    (metrics,) = [table for table in found if table[0][0][0] == "set" and table[0][1][0] == "score by"]
    check_metrics(
        metrics,
        {
            name: {
                mode: measures(columns_of(folder, mode)["test"], columns_of(folder, mode)[name])
                for mode in MODES
            }
            for name in SETS
        },
    )
    (counts,) = [table for table in found if table[0][-1][0] == "that is"]
    for row, name in zip(counts[1:], ("test", *SETS), strict=True):
        above = int((scores[name] > t).sum())
        assert [row[1][0], row[2][0], row[3][0]] == ["40", str(above), f"{100 * above / 40:.2f}"]
        assert row[4][0] == ("FPR, false alarms" if name == "test" else "TPR, OOD found")
    for head in ("Controls", "Clusters", "Worst failures", "k and α on the validation set"):
        assert f"<h2>{head}</h2>" in page
    # the same words and units as on the pages
    for said in (HISTOGRAM_CAPTION, ROC_CAPTION, precision_caption("OOD"), "The frame is what is in force"):
        assert html.escape(said) in page
    assert "Drawn: test (ID), shapes-novel (near-OOD), shapes-empty (far-OOD);" in page
    assert "log10" not in page
    (clusters,) = [table for table in found if table[0][0][0] == "labels from"]
    nmi = report_of(folder)["clusters"]["nmi"]
    assert clusters[1][clusters[0].index(("NMI, 0 to 1", ""))][0] == f"{nmi:.4f}"
    # 4. the worst failures of each set, with pictures
    for name, one in scores.items():
        wrong = (one > t) if name == "test" else (one <= t)
        kind = "flagged by mistake" if name == "test" else "missed"
        assert f": {wrong.sum()} of 40 {kind}" in page
    table = pd.read_parquet(folder / "scores.parquet")
    missed = table[(table["set"] == "digits") & (table["total"] <= t)]
    worst = missed.iloc[(missed["total"] - t).argmin()]
    assert (
        f'alt="{worst["id"]}: score {worst["total"]:.4g}, margin {worst["total"] - t:+.4g}" src="data:' in page
    )
    assert page.count("<svg") >= 6
    # without the map when it is not wanted
    at.toggle(key="results_report_map").set_value(False).run()
    assert "k and α on the validation set" not in files[f"sdviz-report-full-{digest[:8]}.html"]()
