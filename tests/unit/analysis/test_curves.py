from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score
from sklearn.metrics import precision_recall_curve as sklearn_pr
from sklearn.metrics import roc_curve as sklearn_roc

from sdviz.analysis import Evidence
from sdviz.analysis.curves import (
    histogram,
    k_alpha_map,
    precision_recall_curve,
    reported,
    results_of,
    roc_curve,
)
from sdviz.analysis.rescoring import rescorer, stored_scores
from sdviz.detection.score import SDScore


def draw(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    known, ood = rng.gamma(2.0, 1.0, 180), rng.gamma(4.0, 1.0, 70)
    return (known.round(), ood.round()) if ties else (known, ood)


def of_sklearn(known: np.ndarray, ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[np.zeros(len(known)), np.ones(len(ood))], np.r_[known, ood]


@pytest.mark.parametrize("ties", [False, True])
def test_roc_is_scikit_learns(ties: bool) -> None:
    known, ood = draw(0, ties)
    x, y = roc_curve(known, ood)
    want_x, want_y, _ = sklearn_roc(*of_sklearn(known, ood), drop_intermediate=False)
    # the same line: every point of either lies on the other
    assert auc(x, y) == pytest.approx(roc_auc_score(*of_sklearn(known, ood)), abs=1e-12)
    pairs = set(zip(want_x.round(12), want_y.round(12), strict=True))
    assert all(point in pairs for point in zip(x.round(12), y.round(12), strict=True))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    # no point in the middle of a straight line
    dx, dy = np.diff(x), np.diff(y)
    assert (np.abs(dx[:-1] * dy[1:] - dy[:-1] * dx[1:]) > 1e-12).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("positive", ["ood", "id"])
def test_precision_and_recall_are_scikit_learns(ties: bool, positive: str) -> None:
    known, ood = draw(1, ties)
    recall, precision = precision_recall_curve(known, ood, positive)  # type: ignore[arg-type]
    truth, score = of_sklearn(known, ood)
    if positive == "id":
        truth, score = 1 - truth, -score
    want_precision, want_recall, _ = sklearn_pr(truth, score)
    pairs = set(zip(want_recall.round(12), want_precision.round(12), strict=True))
    assert all(p in pairs for p in zip(recall[:-1].round(12), precision[:-1].round(12), strict=True))
    # as a staircase its area is the average precision
    area = -(np.diff(recall) * precision[:-1]).sum()
    assert area == pytest.approx(average_precision_score(truth, score), abs=1e-12)


def test_one_image_on_each_side() -> None:
    x, y = roc_curve(np.array([1.0]), np.array([2.0]))
    assert (x.tolist(), y.tolist()) == ([0, 0, 1], [0, 1, 1])
    x, y = roc_curve(np.array([1.0]), np.array([1.0]))
    assert (x.tolist(), y.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("scale", ["log", "near", "linear"])
def test_every_score_stands_in_a_bin(scale: str) -> None:
    rng = np.random.default_rng(2)
    scores = {"test": rng.gamma(2, 1, 300), "far": 40 + rng.gamma(2, 1, 90)}
    scores["test"][:3] = 0.0
    found = histogram(scores, 5.0, scale)  # type: ignore[arg-type]
    for name, counts in found.counts.items():
        assert counts.sum() == len(scores[name])
    # numpy's own counting of what is inside
    inside = scores["test"][(scores["test"] >= found.edges[0]) & (scores["test"] <= found.edges[-1])]
    want = np.histogram(inside, found.edges)[0]
    want[0] += (scores["test"] < found.edges[0]).sum()
    assert (found.counts["test"] == want).all()
    assert found.n_beyond == (90 if scale == "near" else 0)
    assert (np.diff(found.edges) > 0).all()
    if scale == "near":
        assert found.edges[-1] == 20.0


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_single_score_has_a_bin(value: float) -> None:
    found = histogram({"test": np.array([value])}, value)
    assert found.counts["test"].sum() == 1 and found.edges[0] < found.edges[-1]
    with pytest.raises(ValueError, match="no scores"):
        histogram({}, 1.0)


def test_computed_metrics_are_those_of_the_report(evidence: Evidence) -> None:
    bootstrap = evidence.report.bootstrap
    assert bootstrap.seed == 0
    own = results_of(evidence, stored_scores(evidence), bootstrap.n)
    want = reported(evidence)
    assert want.from_report and not own.from_report
    for name, one in evidence.report.results.items():
        assert own.results[name].modes == one.modes == want.results[name].modes
        assert own.results[name].n == one.n and own.results[name].role == one.role
        assert own.results[name].split == one.split
    assert own.means == evidence.report.means


def test_the_map_over_k_and_alpha_is_a_score_for_each_cell(evidence: Evidence) -> None:
    banks, sets = evidence.banks, evidence.sets
    ks, alphas = (1, 5, 20), (0.0, 0.1, 1.0)
    found = k_alpha_map(rescorer(evidence, True), "test", ["shapes-novel-val"], ks, alphas)
    for i, alpha in enumerate(alphas):
        for j, k in enumerate(ks):
            score = SDScore(k, alpha, True).fit(
                banks.id_features, banks.outlier_features, banks.id_ids, banks.outlier_ids
            )
            known, ood = (
                score.score(sets[n].features, sets[n].ids).total for n in ("test", "shapes-novel-val")
            )
            assert found[i, j] == pytest.approx(roc_auc_score(*of_sklearn(known, ood)), abs=1e-12)
    with pytest.raises(ValueError, match="no set"):
        k_alpha_map(rescorer(evidence, True), "test", [], ks, alphas)


def test_exported_scores_give_the_reports_numbers(evidence: Evidence, tmp_path: Path) -> None:
    """The table of scores alone, by scikit-learn."""
    known = evidence.sets["test"].total
    for name, result in evidence.report.results.items():
        truth, score = of_sklearn(known, evidence.sets[name].total)
        m = result.modes["both"]
        assert m.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert m.aupr_out == pytest.approx(average_precision_score(truth, score), abs=1e-12)
        assert m.aupr_in == pytest.approx(average_precision_score(1 - truth, -score), abs=1e-12)
