from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from sdviz.analysis import Evidence
from sdviz.analysis.failures import find_failures, is_wrong, predicted_clusters, rates, recall_of
from sdviz.analysis.rescoring import stored_scores
from sdviz.evaluation import id_recall_threshold, ood_reference


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.95, 1.0])
def test_failures_are_all_there_and_worst_first(evidence: Evidence, quantile: float) -> None:
    scores = stored_scores(evidence)
    t = float(np.quantile(np.concatenate([s.total for s in scores.values()]), quantile))
    missed = find_failures(evidence.sets, scores, t, False)
    alarms = find_failures(evidence.sets, scores, t, True)
    assert len(alarms) == int((evidence.id_set.total > t).sum())
    assert len(missed) == sum(int((one.total <= t).sum()) for one in evidence.ood_sets.values())
    for found, sign in ((missed, -1), (alarms, 1)):
        assert (np.diff(found.margins) <= 0).all()
        assert np.allclose(found.margins, sign * (found.scores - t))
        for name, row, one, score in zip(found.sets, found.rows, found.ids, found.scores, strict=True):
            assert evidence.sets[name].ids[row] == one and scores[name].total[row] == score
    assert len(set(missed.ids.tolist())) == len(missed)
    some = missed.only(missed.sets == "digits")
    assert set(some.sets.tolist()) <= {"digits"}


def test_a_score_at_the_threshold_is_called_id(evidence: Evidence) -> None:
    one, near = evidence.id_set, evidence.sets["shapes-novel"]
    t = float(one.total[3])
    assert not is_wrong(one, one.total, t)[3]
    assert is_wrong(near, np.full(len(near), t), t).all()
    nothing = find_failures({"test": one}, {"test": stored_scores(evidence)["test"]}, t, False)
    assert len(nothing) == 0 and nothing.sets.dtype.kind == "U"


def test_rates_count_each_group() -> None:
    groups = np.array(["a", "b", "a", "b", "c"])
    found = rates("s", groups, np.array([True, False, False, False, True]))
    assert [(r.name, r.wrong, r.n, r.percent) for r in found] == [
        ("c", 1, 1, 100.0), ("a", 1, 2, 50.0), ("b", 0, 2, 0.0),
    ]  # fmt: skip
    assert rates("s", np.array([], str), np.array([], bool)) == []


def test_a_large_group_with_many_failures_comes_before_a_tiny_one_with_all() -> None:
    groups = np.repeat(["tiny", "large"], [4, 2000])
    found = rates("s", groups, np.r_[np.ones(4, bool), np.arange(2000) < 1900])
    assert [r.name for r in found] == ["large", "tiny"]
    for rate in found:
        wilson = binomtest(rate.wrong, rate.n).proportion_ci(0.95, "wilson")
        assert rate.at_least == pytest.approx(100 * wilson.low, abs=1e-4)


@pytest.mark.parametrize("n", [1, 7, 40, 1000])
def test_threshold_and_recall_undo_each_other(n: int) -> None:
    scores = np.sort(np.random.default_rng(n).random(n))
    for recall in (80.0, 90.5, 95.0, 99.5, 100.0):
        t = id_recall_threshold(scores, recall)
        assert recall_of(scores, t) >= recall - 1e-9
        below = scores[scores < t]
        assert 100 * len(below) / n < recall
    assert id_recall_threshold(scores, 95) == ood_reference(scores).threshold
    assert recall_of(scores, -1.0) == 0.0


def test_what_the_detector_takes_an_image_for(evidence: Evidence) -> None:
    one = evidence.sets["test"]
    assert np.array_equal(predicted_clusters(evidence, one), one.heads["g_in"].argmax(1))
    # without heads: the nearest training image, here found by brute force
    headless = replace(one, heads={})
    banks, unit = evidence.banks, lambda f: f / np.linalg.norm(f, axis=1, keepdims=True)
    assert one.features is not None
    d = np.linalg.norm(unit(one.features)[:, None] - unit(banks.id_features)[None], axis=2)
    assert np.array_equal(predicted_clusters(evidence, headless), banks.id_labels[d.argmin(1)])
    assert (predicted_clusters(evidence, replace(headless, features=None)) == -1).all()
