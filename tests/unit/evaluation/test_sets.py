from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sdviz.config.tree import ScoreConfig
from sdviz.evaluation import (
    Evaluation,
    FeatureSet,
    compare_auroc,
    control_report,
    evaluate,
    interpolation_report,
)
from sdviz.evaluation.sets import SCORES_SCHEMA

RAW = ScoreConfig(k=2, alpha=0.5, normalize=False)


def line(name: str, role: str, at: list[float]) -> FeatureSet:
    """Features on a line."""
    ids = np.array([f"{name}/{i}" for i in range(len(at))])
    x = np.array(at, np.float32)[:, None]
    return FeatureSet(name, role, "test", x, ids, np.full(len(at), -1))  # type: ignore[arg-type]


def rows_of(table: pa.Table, name: str) -> dict[str, list[Any]]:
    return table.filter(pa.compute.equal(table["set"], name)).to_pydict()


def test_scores_by_hand_made_neighbours() -> None:
    bank = line("train", "id", [0, 1, 10])
    outliers = np.array([[4.0], [5.0]], np.float32)
    sets = [line("test", "id", [0.5, 2]), line("odd", "near", [6, 4])]
    found = evaluate(bank.features, bank.ids, outliers, sets, RAW, 0, 0, "cpu")
    test, odd = rows_of(found.scores, "test"), rows_of(found.scores, "odd")
    assert test["distance"] == [0.25 + 0.25, 1 + 4]
    assert test["votes"] == [0, 0]  # of 2, the nearest are 1, then 0 and 4 at the same distance: ID comes first
    assert odd["distance"] == [16 + 25, 9 + 16]
    assert odd["votes"] == [2, 2]
    assert odd["total"] == [42, 26]
    results = found.report["results"]["odd"]
    assert results["modes"]["both"]["auroc"] == 1.0
    assert results["modes"]["votes"]["fpr95_id_recall"] == 0.0
    assert results["modes"]["both"]["auroc_interval"] is None
    assert found.report["thresholds"] == {"distance": 5.0, "votes": 0.0, "both": 5.0}
    assert found.report["bank"] == {"n_id": 3, "n_outliers": 2, "ratio": 2 / 3, "feature_dim": 1}


def test_an_image_of_the_bank_is_not_its_own_neighbour() -> None:
    bank = line("train", "id", [0, 1, 10])
    itself = line("train", "id", [0, 1, 10])
    found = evaluate(bank.features, bank.ids, None, [itself], RAW, 0, 0, "cpu")
    assert rows_of(found.scores, "train")["distance"] == [1 + 100, 1 + 81, 81 + 100]
    stranger = replace(itself, ids=np.array(["a", "b", "c"]))
    found = evaluate(bank.features, bank.ids, None, [stranger], RAW, 0, 0, "cpu")
    assert rows_of(found.scores, "train")["distance"] == [1, 1, 81]


def test_numbers_against_brute_force_and_scikit_learn(features: Callable[..., FeatureSet]) -> None:
    bank, test = features("train", "id", 150, 0.0, 1), features("test", "id", 60, 0.0, 2)
    odd, outliers = features("odd", "near", 45, 0.8, 3), features("out", "near", 150, 0.7, 4).features
    score = ScoreConfig(k=5, alpha=0.1, normalize=True)
    found = evaluate(bank.features, bank.ids, outliers, [test, odd], score, 0, 0, "cpu")

    def unit(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def eq6(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.concatenate([unit(bank.features), unit(outliers)])
        squared = ((unit(x)[:, None] - both[None]) ** 2).sum(-1)
        distance = np.sort(squared[:, :150], axis=1)[:, :5].sum(1)
        return distance, (np.argsort(squared, axis=1)[:, :5] >= 150).sum(1)

    (id_distance, id_votes), (ood_distance, ood_votes) = eq6(test.features), eq6(odd.features)
    table = rows_of(found.scores, "odd")
    np.testing.assert_allclose(table["distance"], ood_distance, rtol=1e-4)
    assert table["votes"] == ood_votes.tolist()
    assert 0 < np.mean(ood_votes) < 5
    truth = np.repeat([0, 1], [60, 45])
    columns = {
        "distance": np.concatenate([id_distance, ood_distance]),
        "votes": np.concatenate([id_votes, ood_votes]),
        "both": np.concatenate([id_distance + 0.1 * id_votes, ood_distance + 0.1 * ood_votes]),
    }
    for mode, scores in columns.items():
        measured = found.report["results"]["odd"]["modes"][mode]
        fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
        tnr_of_id, miss = 1 - fpr, 1 - tpr
        assert measured["auroc"] == pytest.approx(roc_auc_score(truth, scores))
        assert measured["aupr_out"] == pytest.approx(average_precision_score(truth, scores))
        assert measured["aupr_in"] == pytest.approx(average_precision_score(1 - truth, -scores))
        assert measured["fpr95_ood_recall"] == pytest.approx(fpr[tpr >= 0.95].min())
        assert measured["fpr95_id_recall"] == pytest.approx(miss[tnr_of_id >= 0.95 - 1e-9].min())


def test_threshold_and_fpr_speak_of_the_same_images(evaluation: Callable[..., Evaluation]) -> None:
    found = evaluation()
    for mode, column in (("distance", "distance"), ("votes", "votes"), ("both", "total")):
        threshold = found.report["thresholds"][mode]
        accepted = np.array(rows_of(found.scores, "test")[column]) <= threshold
        assert accepted.mean() >= 0.95
        for name, result in found.report["results"].items():
            missed = (np.array(rows_of(found.scores, name)[column]) <= threshold).mean()
            assert result["modes"][mode]["fpr95_id_recall"] == pytest.approx(missed)


def test_g_bin_alone_is_the_log_odds_of_an_outlier(evaluation: Callable[..., Evaluation]) -> None:
    found, other = evaluation(), evaluation(0.6)
    columns = {}
    for name in ("test", "near-a"):
        logits = np.array(rows_of(found.scores, name)["g_bin"], np.float64)
        columns[name] = logits[:, 1] - logits[:, 0]
    truth = np.repeat([0, 1], [60, 40])
    measured = found.report["results"]["near-a"]["modes"]["g_bin"]
    assert measured["auroc"] == pytest.approx(roc_auc_score(truth, np.concatenate([*columns.values()])))
    assert (columns["test"] <= found.report["thresholds"]["g_bin"]).mean() >= 0.95
    assert found.report["means"]["near"]["g_bin"]["n_sets"] == 2
    # the same logits in both
    assert compare_auroc(found.scores, other.scores, "near-a", "g_bin", 20, 0) == {
        "auroc": 0.0,
        "interval": [0.0, 0.0],
    }
    assert "g_bin" not in evaluation(heads=False).report["results"]["near-a"]["modes"]


def test_a_point_of_the_interpolation_is_the_whole_score(evaluation: Callable[..., Evaluation]) -> None:
    found = evaluation()
    point = interpolation_report(found)
    assert point["results"].keys() == found.report["results"].keys()
    for name, one in point["results"].items():
        assert one == found.report["results"][name]["modes"]["both"]
    assert point["means"]["near"] == found.report["means"]["near"]["both"]


def test_means_count_every_set_the_same(evaluation: Callable[..., Evaluation]) -> None:
    report = evaluation().report
    near = [report["results"][name]["modes"]["both"] for name in ("near-a", "near-b")]
    assert near[0]["auroc"] != near[1]["auroc"]
    for key in ("auroc", "fpr95_id_recall", "fpr95_ood_recall", "aupr_in", "aupr_out"):
        assert report["means"]["near"]["both"][key] == pytest.approx((near[0][key] + near[1][key]) / 2)
    assert report["means"]["near"]["both"]["n_sets"] == 2
    assert list(report["means"]) == ["near", "far", "validation"]


def test_the_interval_holds_the_value_and_is_drawn_from_the_seed(evaluation: Callable[..., Evaluation]) -> None:
    report, again = evaluation(bootstrap=200).report, evaluation(bootstrap=200).report
    assert report == again
    one = report["results"]["near-a"]["modes"]["both"]
    low, high = one["auroc_interval"]
    assert 0.5 < low < one["auroc"] < high < 1


def test_without_outliers_there_are_no_votes(evaluation: Callable[..., Evaluation]) -> None:
    found = evaluation(outliers=False)
    assert found.report["bank"]["ratio"] == 0
    assert set(found.report["thresholds"]) == {"distance", "both", "g_bin"}
    modes = found.report["results"]["near-a"]["modes"]
    assert modes["both"] == modes["distance"]
    assert found.scores["total"].to_pylist() == found.scores["distance"].to_pylist()


def test_the_table_holds_every_image_with_its_heads(
    evaluation: Callable[..., Evaluation], features: Callable[..., FeatureSet]
) -> None:
    table = evaluation().scores
    assert table.schema == SCORES_SCHEMA
    assert table.num_rows == 60 + 40 + 10 + 30 + 20
    expected = features("near-b", "near", 10, 2.0, 4, True)
    rows = rows_of(table, "near-b")
    assert rows["role"] == ["near"] * 10
    assert rows["id"] == expected.ids.tolist()
    assert rows["label"] == expected.labels.tolist()
    assert expected.heads is not None
    for head, logits in expected.heads.items():
        assert np.array_equal(np.array(rows[head], np.float32), logits)
    assert evaluation(heads=False).scores["g_in"].null_count == table.num_rows


def test_only_id_images_still_give_a_threshold(features: Callable[..., FeatureSet]) -> None:
    bank, test = features("train", "id", 50, 0.0, 1), features("test", "id", 20, 0.0, 2)
    report = evaluate(bank.features, bank.ids, None, [test], RAW, 100, 0, "cpu").report
    assert report["results"] == report["means"] == {}
    assert report["thresholds"]["both"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features": np.full((3, 6), np.nan, np.float32)},
            "odd: features hold NaN .* first in row 0",
        ),
        ({"features": np.zeros((0, 6), np.float32), "ids": np.array([], str)}, "odd: holds no images"),
        ({"features": np.zeros((3, 5), np.float32)}, r"odd: features \(3, 5\) are not \(N,6\)"),
        ({"ids": np.array(["a", "b"])}, r"odd: 3 features, but ids \(2,\)"),
        ({"ids": np.array(["a", "b", "a"])}, "odd: an id occurs twice"),
        ({"role": "nearly"}, "odd: role 'nearly' is not one of id, near"),
        ({"role": "id"}, "2 sets have role id"),
        ({"name": "test"}, "test: two sets have this name"),
        ({"heads": {"g_bin": np.zeros((3, 2))}}, "odd: heads g_bin are not"),
        ({"heads": {h: np.zeros((2, 2)) for h in ("g_bin", "g_in", "g_out")}}, r"but g_bin \(2, 2\)"),
        ({"heads": {h: np.full((3, 2), np.inf) for h in ("g_bin", "g_in", "g_out")}}, "g_bin holds NaN"),
    ],
)
def test_what_cannot_be_measured_is_named(
    features: Callable[..., FeatureSet], change: dict[str, Any], message: str
) -> None:
    bank, test = features("train", "id", 50, 0.0, 1), features("test", "id", 20, 0.0, 2)
    odd = replace(features("odd", "near", 3, 0.0, 3), **change)
    with pytest.raises(ValueError, match=message):
        evaluate(bank.features, bank.ids, None, [test, odd], RAW, 0, 0, "cpu")


@pytest.mark.parametrize(
    ("banks", "message"),
    [
        ((np.zeros((0, 6)), np.array([], str), None), "the ID bank must hold features"),
        ((np.full((4, 6), np.inf), np.array(list("abcd")), None), "the ID bank: features hold NaN"),
        ((np.zeros((4, 6)), np.array(list("abc")), None), "the ID bank: 4 features, but ids"),
        ((np.zeros((4, 6)), np.array(list("abcd")), np.zeros((0, 6))), "the outlier bank holds no features"),
        ((np.zeros((4, 6)), np.array(list("abcd")), np.zeros((2, 5))), "the outlier bank: features"),
        ((np.zeros((1, 6)), np.array(["a"]), None), "k = 2"),
    ],
)
def test_banks_that_cannot_be_used_are_named(
    features: Callable[..., FeatureSet], banks: tuple[Any, Any, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(*banks, [features("test", "id", 20, 0.0, 2)], RAW, 0, 0, "cpu")


def test_a_method_is_compared_on_the_same_images_whatever_their_order(
    evaluation: Callable[..., Evaluation],
) -> None:
    good, weak = evaluation(1.0), evaluation(0.6)
    found = compare_auroc(good.scores, weak.scores, "near-a", "both", 300, 0)
    aurocs = [one.report["results"]["near-a"]["modes"]["both"]["auroc"] for one in (good, weak)]
    low, high = found["interval"]
    assert found["auroc"] == pytest.approx(aurocs[0] - aurocs[1])
    assert 0 < low < found["auroc"] < high
    shuffled = weak.scores.take(np.random.default_rng(0).permutation(weak.scores.num_rows))
    assert compare_auroc(good.scores, shuffled, "near-a", "both", 300, 0) == found
    backwards = compare_auroc(weak.scores, good.scores, "near-a", "both", 300, 0)
    assert backwards["auroc"] == -found["auroc"]
    assert compare_auroc(good.scores, good.scores, "near-a", "both", 50, 0) == {"auroc": 0, "interval": [0, 0]}
    assert compare_auroc(good.scores, weak.scores, "near-a", "both", 0, 0)["interval"] is None


def test_pairing_narrows_the_interval(evaluation: Callable[..., Evaluation]) -> None:
    good, weak = evaluation(1.0, bootstrap=500), evaluation(0.9, bootstrap=500)
    low, high = compare_auroc(good.scores, weak.scores, "near-a", "distance", 500, 0)["interval"]
    apart = [one.report["results"]["near-a"]["modes"]["distance"]["auroc_interval"] for one in (good, weak)]
    assert high - low < 0.5 * np.hypot(*(b - a for a, b in apart))


def test_what_cannot_be_compared_is_named(evaluation: Callable[..., Evaluation]) -> None:
    scores = evaluation().scores
    fewer = scores.slice(1)
    with pytest.raises(ValueError, match="ID images: the two tables hold other images"):
        compare_auroc(scores, fewer, "near-a", "both", 10, 0)
    with pytest.raises(ValueError, match="mode 'total' is not one of distance, votes, both, g_bin"):
        compare_auroc(scores, scores, "near-a", "total", 10, 0)
    with pytest.raises(ValueError, match="no image of set near-z"):
        compare_auroc(scores, scores, "near-z", "both", 10, 0)
    with pytest.raises(ValueError, match="test is the ID set"):
        compare_auroc(scores, scores, "test", "both", 10, 0)


def test_a_control_carries_its_differences(evaluation: Callable[..., Evaluation]) -> None:
    method, plain = evaluation(), evaluation(0.6, outliers=False)
    tree = control_report(method, plain, 50, 0)
    assert tree["results"] == plain.report["results"]
    assert set(tree["differences"]) == {"near-a", "near-b", "far-a", "val-a"}
    assert set(tree["differences"]["near-a"]) == {"distance", "both", "g_bin"}
    assert tree["differences"]["far-a"]["both"] == compare_auroc(
        method.scores, plain.scores, "far-a", "both", 50, 0
    )
    del plain.report["results"]["near-b"]
    with pytest.raises(ValueError, match="the control knows the sets near-a, far-a"):
        control_report(method, plain, 50, 0)
