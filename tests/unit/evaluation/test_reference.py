from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import percentileofscore

from sdviz.detection.score import SDScore
from sdviz.evaluation import id_recall_threshold, ood_reference, score_table


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 40, 99, 100, 1000, 1999])
def test_the_threshold_is_the_smallest_that_keeps_95_percent(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    threshold = id_recall_threshold(scores)
    assert 100 * (scores <= threshold).sum() >= 95 * n
    assert 100 * (scores < threshold).sum() < 95 * n
    assert threshold == np.quantile(scores, 0.95, method="inverted_cdf")


@pytest.mark.parametrize("n", [7, 20, 100, 333])
def test_percentile_and_flag_with_many_ties(n: int) -> None:
    rng = np.random.default_rng(n)
    id_scores, scores = rng.integers(0, 8, n).astype(float), np.arange(-1, 10).astype(float)
    reference = ood_reference(id_scores)
    percentile = reference.percentile(scores)
    expected = [percentileofscore(id_scores, one, kind="strict") for one in scores]
    np.testing.assert_allclose(percentile, expected)
    assert np.array_equal(reference.flag(scores), 100 * (id_scores < scores[:, None]).sum(1) >= 95 * n)
    assert reference.flag(id_scores).mean() <= 0.05


def test_equal_scores_flag_nobody() -> None:
    reference = ood_reference(np.full(50, 3.0))
    assert reference.percentile(np.array([2.0, 3.0, 3.5])).tolist() == [0, 0, 100]
    assert reference.flag(np.array([2.0, 3.0, 3.5])).tolist() == [False, False, True]


def test_more_ood_than_97_percent_of_id() -> None:
    reference = ood_reference(np.arange(100)[::-1])
    assert reference.percentile(np.array([97])).tolist() == [97.0]
    assert reference.threshold == 94
    assert reference.name == "95 % ID recall"


def test_a_threshold_of_ones_own() -> None:
    by_recall, by_number = ood_reference(np.arange(100), 90), ood_reference(np.arange(100), threshold=42.5)
    assert (by_recall.threshold, by_recall.name) == (89, "90 % ID recall")
    assert (by_number.threshold, by_number.name) == (42.5, "the bundle's threshold")
    assert by_number.flag(np.array([42.5, 42.6])).tolist() == [False, True]


@pytest.mark.parametrize("bad", [np.array([]), np.array([1, np.nan]), np.array([np.inf]), np.zeros((2, 2))])
def test_scores_that_mean_nothing_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="ID scores"):
        ood_reference(bad)
    with pytest.raises(ValueError, match="scores"):
        ood_reference(np.arange(5)).percentile(bad)


def test_a_table_of_scores_by_hand() -> None:
    bank_ids = np.array(["a", "b", "c"])
    scorer = SDScore(k=2, alpha=0.5, normalize=False).fit(
        np.array([[0.0], [1.0], [10.0]]), np.array([[4.0], [5.0]]), id_ids=bank_ids
    )
    reference = ood_reference(np.arange(1, 21, dtype=float))  # 1..20: 19 is the threshold
    table = score_table(
        np.array(["x", "y"]), ["/a/x.png", ""], scorer.score(np.array([[0.9], [6.0]])), bank_ids, reference
    ).to_pydict()
    assert table["id"] == ["x", "y"]
    assert table["nearest_ids"] == [["b", "a"], ["c", "b"]]
    assert table["votes"] == [0, 2]
    assert table["distance"] == pytest.approx([0.01 + 0.81, 16 + 25])
    assert table["score"] == pytest.approx([0.82, 42])
    assert table["path"] == ["/a/x.png", ""]
    assert table["quantile"] == [0, 1]
    assert table["threshold"] == [19, 19]
    assert table["verdict"] == ["ID", "OOD"]


def test_a_table_of_scores_that_does_not_fit() -> None:
    bank_ids, reference = np.array(["a", "b", "c"]), ood_reference(np.arange(5))
    scores = SDScore(k=2, normalize=False).fit(np.array([[0.0], [1.0], [9.0]])).score(np.array([[8.0]]))
    with pytest.raises(ValueError, match="2 ids, 1 scores and 1 rows"):
        score_table(np.array(["x", "y"]), ["", ""], scores, bank_ids, reference)
    with pytest.raises(ValueError, match="outside the ID bank of 2 images"):
        score_table(np.array(["x"]), [""], scores, bank_ids[:2], reference)
