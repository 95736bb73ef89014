from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sdviz.config.tree import TuningConfig
from sdviz.evaluation import (
    BaselineScores,
    Evaluation,
    Report,
    ReportError,
    baseline_report,
    cluster_report,
    control_report,
    frechet_distances,
    id_accuracy,
    interpolation_report,
    make_report,
    results_table,
)
from sdviz.evaluation.report import Trial, Tuning, parse_report
from sdviz.evaluation.tables import MODE_NAMES, images_line, overlap_line

COMMAND = "python -m sdviz report runs/a runs/b --out docs/results.md"


@pytest.fixture
def report(evaluation: Callable[..., Evaluation]) -> Callable[..., Report]:
    """Makes the report of a run by its seed; `change` may alter the tree."""

    def make(seed: int = 0, change: Callable[[dict[str, Any]], object] = lambda tree: None) -> Report:
        method, plain = evaluation(1.0 + seed / 10), evaluation(0.6, outliers=False)
        x = np.random.default_rng(seed).normal(size=(4, 30, 3))
        classes = np.arange(30) % 3
        curve = {"0": interpolation_report(plain), "0.5": interpolation_report(method)}
        tree = make_report(
            method.report,
            {"no_training": control_report(method, plain, 20, 0)},
            bootstrap=20,
            bootstrap_seed=0,
            seeds={"run": seed, "detector": seed},
            config_sha256=str(seed),
            id_accuracy=id_accuracy(np.eye(3)[classes], classes, np.full(30, -1)),
            clusters=cluster_report(classes, classes, 3, "scan"),
            frechet={"FD (small)": frechet_distances(*x)},
            interpolation=curve,
        )
        change(tree)
        return parse_report(json.dumps(tree), "test")

    return make


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Heading -> rows of its table, by column."""
    found = {}
    for part in text.split("\n## ")[1:]:
        heading, *rest = part.splitlines()
        lines = [[c.strip() for c in one.strip("|").split("|")] for one in rest if one.startswith("|")]
        assert all(len(one) == len(lines[0]) for one in lines), heading
        found[heading] = [dict(zip(lines[0], one, strict=True)) for one in lines[2:]]
    return found


def mean_spread(values: list[float], sign: str = "") -> str:
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{100 * mean:{sign}.2f} ± {100 * spread:.2f}"


def test_mean_and_spread_over_seeds(report: Callable[..., Report]) -> None:
    reports = [report(seed) for seed in (0, 1, 2)]
    text = results_table(reports, COMMAND)
    assert text.splitlines()[0] == f"Made by `{COMMAND}`."
    assert "3 runs (seed 0, seed 1, seed 2), which differ in the seed of run, detector" in text
    assert "60 held-out images. Banks: 150 ID images, 150 outliers (ratio 1.00)" in text
    found = tables(text)

    # 1. every set and mode, the control beside it
    rows = {(r["set"], r["role"], r["score by"]): r for r in found["AUROC, %"]}
    assert len(rows) == len(found["AUROC, %"]) == 4 * (4 + 1)  # 4 sets and the mean of the two near ones
    for mode, name in MODE_NAMES.items():
        row = rows["near-a", "near", name]
        assert row["images"] == "40"
        assert row["SD outliers"] == mean_spread([r.results["near-a"].modes[mode].auroc for r in reports])
        mean = rows["**mean**", "near", name]
        assert mean["SD outliers"] == mean_spread([r.means["near"][mode].auroc for r in reports])
        plain = [r.controls["no_training"].results["near-a"].modes.get(mode) for r in reports]
        same = plain[0]
        assert row["no detector training"] == (f"{100 * same.auroc:.2f} ± 0.00" if same is not None else "-")
    assert rows["near-a", "near", "votes only"]["no detector training"] == "-"
    curve = {r["set"]: r for r in found["Between no training and the trained weights, AUROC, %"]}
    assert list(curve) == ["near-a", "near-b", "**mean**", "far-a", "val-a"]
    for name, of in (("near-a", lambda p: p.results["near-a"]), ("**mean**", lambda p: p.means["near"])):
        for share in ("0", "0.5"):
            expected = [of(r.interpolation[share]).auroc for r in reports]
            assert curve[name][f"a = {share}"] == mean_spread(expected)

    # 2. the other measures
    (far,) = (r for r in found["All measures, by both terms of Eq. 6, %"] if r["set"] == "far-a")
    assert far["AUPR-in"] == mean_spread([r.results["far-a"].modes["both"].aupr_in for r in reports])

    # 3. paired differences with their intervals
    rows = found["The method's AUROC minus a control's, points"]
    assert [r["set"] for r in rows] == ["near-a", "near-b", "far-a", "val-a"]
    of_run = [r.controls["no_training"].differences["near-a"]["both"] for r in reports]
    assert rows[0]["mean"] == mean_spread([one.auroc for one in of_run], "+")
    interval = of_run[1].interval
    assert interval is not None
    low, high = (100 * bound for bound in interval)
    assert rows[0]["seed 1"] == f"{100 * of_run[1].auroc:+.2f} ({low:+.2f} to {high:+.2f})"

    # 4. clusters and Frechet distances
    (row,) = found["Clusters and ID accuracy, %"]
    assert row["labels from"] == "scan" and row["cluster accuracy"] == "100.00 ± 0.00"
    assert row["g_in names the class"] == "-"
    (row,) = found["Frechet distances"]
    values = [r.frechet["FD (small)"].outliers_to_train for r in reports]
    assert row["outliers to train"] == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    assert row["images"] == "train 30, outliers 30, reconstructions 30, test 30"
    assert row["outlier to its source (mean L2)"] == "-"


def test_one_run_has_intervals_and_no_spread(report: Callable[..., Report]) -> None:
    one = report()
    text = results_table([one], COMMAND)
    assert "One run;" in text and "±" not in text.split("\n## ", 1)[1]
    found = tables(text)
    metrics = one.results["near-a"].modes["distance"]
    assert metrics.auroc_interval is not None
    low, high = metrics.auroc_interval
    assert (
        found["AUROC, %"][0]["SD outliers"]
        == f"{100 * metrics.auroc:.2f} ({100 * low:.2f} to {100 * high:.2f})"
    )
    assert found["The method's AUROC minus a control's, points"][0]["difference"].startswith("+")


def test_images_in_two_sets_are_told_of(report: Callable[..., Report]) -> None:
    sets = {"near-a": {"train": 1234, "val-a": 5}, "test": {"train": 1}}

    def line(policy: str, sets: dict[str, dict[str, int]]) -> str:
        overlap = {"on_overlap": policy, "copies": 7, "sets": sets}
        one = report(0, lambda tree: tree.update(overlap=overlap))
        assert overlap_line(one) in results_table([one], COMMAND)
        return overlap_line(one)

    counts = "1,234 of near-a in train, 5 of near-a in val-a, 1 of test in train"
    begin = "Images that are in two sets, pixel by pixel, were"
    assert line("drop", sets) == f"{begin} left out of the first: {counts}."
    assert line("keep", sets) == f"{begin} kept: {counts}."
    assert line("drop", {}) == overlap_line(report()) == ""
    assert "pixel by pixel" not in results_table([report()], COMMAND)


def test_what_was_left_out_of_the_training_set_is_told(report: Callable[..., Report]) -> None:
    images: dict[str, Any] = dict.fromkeys(("classes", "splits", "overlap"), {})
    images |= {"pictures": 9, "value_range": "0..255", "warnings": [], "exact_copies": 0, "near_copies": 0}
    images |= {"passed_over": {}, "unreadable": []}

    def line(**found: object) -> str:
        one = report(0, lambda tree: tree.update(images=images | found))
        assert images_line(one) in results_table([one], COMMAND)
        return images_line(one)

    assert line() == images_line(report()) == ""
    assert "Of the training set" not in results_table([report()], COMMAND)
    found = line(passed_over={".heic": 8, "@eaDir": 1200}, unreadable=["a.jpg", "b.jpg"], exact_copies=1234)
    expected = "passed over 8 .heic, 1,200 @eaDir; 2 unreadable, left out; 1,234 copies."
    assert found == f"Of the training set: {expected}"
    assert line(near_copies=2) == "Of the training set: 2 near copies of others."


def test_runs_that_differ_in_one_seed_are_named_by_it(report: Callable[..., Report]) -> None:
    def detector(seed: int) -> Callable[[dict[str, Any]], object]:
        return lambda tree: tree.update(seeds={"run": 0, "detector": seed})

    text = results_table([report(0, detector(4)), report(1, detector(5))], COMMAND)
    assert "2 runs (seed 4, seed 5), which differ in the seed of detector" in text

    def mixed(tree: dict[str, Any]) -> None:
        tree["seeds"] = {"run": 1, "detector": 7}

    assert "(run 1, run 2), which differ in the seed of run, detector" in results_table(
        [report(0), report(1, mixed)], COMMAND
    )


def without_controls(tree: dict[str, Any]) -> None:
    tree["controls"] = {}


def without_results(tree: dict[str, Any]) -> None:
    without_controls(tree)
    tree.update(results={}, means={}, frechet={}, clusters=None, id_accuracy=None)


def test_what_a_run_has_not_is_left_out(report: Callable[..., Report]) -> None:
    assert "minus a control's" not in results_table([report(0, without_controls)], COMMAND)
    text = results_table([report(0, without_results)], COMMAND)
    assert "##" not in text and "60 held-out images" in text


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tree: tree["score"].update(k=3), "score settings"),
        (lambda tree: tree["id_set"].update(n=59), "ID sets"),
        (lambda tree: tree["results"].pop("near-b"), "OOD sets"),
        (lambda tree: tree["results"]["near-b"].update(role="far"), "OOD sets"),
        (without_controls, "controls"),
        (lambda tree: tree.update(frechet={}), "Frechet distances"),
    ],
)
def test_runs_that_do_not_go_together_are_named(
    report: Callable[..., Report], change: Callable[[dict[str, Any]], object], what: str
) -> None:
    with pytest.raises(ReportError, match=f"the runs differ in their {what}"):
        results_table([report(0), report(1, change)], COMMAND)


def test_the_same_run_twice_is_no_spread(report: Callable[..., Report]) -> None:
    with pytest.raises(ReportError, match="two of the runs have the same seeds"):
        results_table([report(0), report(1), report(0)], COMMAND)
    with pytest.raises(ReportError, match="no reports"):
        results_table([], COMMAND)


def test_other_methods_have_a_line_each(evaluation: Callable[..., Evaluation]) -> None:
    reports = []
    for seed in (0, 1):
        method = evaluation()
        names = np.array(method.scores["set"].to_pylist())
        rng = np.random.default_rng(seed)
        scores = {one: rng.normal(size=int((names == one).sum())) for one in np.unique(names)}
        trials = tuple(Trial(settings={"k": k}, value=k / 10) for k in (3, 5 + seed))
        tuned = BaselineScores("knn+tuned", "kNN, tuned", trials[1].settings, scores, trials)
        others = [BaselineScores("knn", "kNN", {"k": 3}, scores), tuned]
        baselines = {one.key: baseline_report(method, one, 0, 0) for one in others}
        tree = make_report(
            method.report,
            {},
            bootstrap=20,
            bootstrap_seed=0,
            seeds={"run": seed},
            config_sha256="0" * 64,
            baselines=baselines,
            tuning=TuningConfig(trials=2, seed=seed).model_dump(mode="json"),
        )
        reports.append(parse_report(json.dumps(tree), "here"))
    text = results_table(reports, "this")
    (line,) = [one for one in text.splitlines() if one.startswith("| kNN |")]
    cells = [one.strip() for one in line.strip("|").split("|")]
    values = [100 * one.baselines["knn"].results["near-a"].auroc for one in reports]
    assert cells[1] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert "| method | near-a | near-b | mean of near | far-a | val-a |" in text
    one_k, other = reports[0], reports[1].model_copy(update={"baselines": {}})
    with pytest.raises(ReportError, match="differ in their other methods"):
        results_table([one_k, other], "this")
    fewer = TuningConfig(trials=1).model_dump()
    with pytest.raises(ReportError, match="differ in their trials"):
        results_table([one_k, reports[1].model_copy(update={"tuning": Tuning(**fewer)})], "this")
