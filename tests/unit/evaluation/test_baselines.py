from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sdviz.evaluation import BaselineScores, Evaluation, baseline_report, baseline_table


@pytest.fixture
def method(evaluation: Callable[..., Evaluation]) -> Evaluation:
    return evaluation()


def scored(method: Evaluation, column: str = "distance") -> BaselineScores:
    """Our own column as if it were another method's scores."""
    names = np.array(method.scores["set"].to_pylist())
    values = method.scores[column].to_numpy()
    return BaselineScores("other", "Other", {}, {name: values[names == name] for name in np.unique(names)})


def test_the_same_scores_reach_the_same_figures(method: Evaluation) -> None:
    report = baseline_report(method, scored(method), 20, 0)
    for name, result in method.report["results"].items():
        assert report["results"][name] == result["modes"]["distance"]
    for role, means in method.report["means"].items():
        assert report["means"][role] == means["distance"]


def test_figures_are_scikit_learns(method: Evaluation) -> None:
    rng = np.random.default_rng(1)
    sizes = {name: len(x) for name, x in scored(method).scores.items()}
    other = BaselineScores("rng", "Dice", {"k": 3}, {name: rng.normal(size=n) for name, n in sizes.items()})
    report = baseline_report(method, other, 0, 0)
    assert report["title"] == "Dice"
    assert report["settings"] == {"k": 3}
    for name, found in report["results"].items():
        truth = np.repeat([0, 1], [sizes["test"], sizes[name]])
        expected = roc_auc_score(truth, np.concatenate([other.scores["test"], other.scores[name]]))
        assert found["auroc"] == pytest.approx(expected, abs=1e-12)
        assert found["auroc_interval"] is None


def test_the_table_has_our_rows_and_a_column_a_method(method: Evaluation) -> None:
    table = baseline_table(method, [scored(method)])
    assert table.column_names == ["set", "role", "id", "other"]
    assert table["id"].to_pylist() == method.scores["id"].to_pylist()
    np.testing.assert_array_equal(table["other"].to_numpy(), method.scores["distance"].to_numpy())


def test_a_set_that_was_not_scored_is_named(method: Evaluation) -> None:
    whole = scored(method).scores
    without = BaselineScores("other", "Other", {}, {k: v for k, v in whole.items() if k != "near-b"})
    cut = BaselineScores("other", "Other", {}, {**whole, "near-b": whole["near-b"][1:]})
    for one, texts in ((without, "other did not score near-b"), (cut, "for the 10 images of near-b")):
        with pytest.raises(ValueError, match=texts):
            baseline_report(method, one, 0, 0)
        with pytest.raises(ValueError, match=texts):
            baseline_table(method, [one])
