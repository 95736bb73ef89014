from __future__ import annotations

import doctest
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sdviz.detection import metrics

ALL = ("auroc", "fpr_at_95_id_recall", "fpr_at_95_ood_recall", "aupr_in", "aupr_out")


def fpr95(positive: np.ndarray, scores: np.ndarray) -> float:
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


REFERENCE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auroc": roc_auc_score,
    "fpr_at_95_id_recall": lambda is_ood, scores: fpr95(1 - is_ood, -scores),
    "fpr_at_95_ood_recall": fpr95,
    "aupr_in": lambda is_ood, scores: average_precision_score(1 - is_ood, -scores),
    "aupr_out": average_precision_score,
}


def inputs() -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    given = [
        ("one of each, right", np.array([0.0]), np.array([1.0])),
        ("one of each, wrong", np.array([1.0]), np.array([0.0])),
        ("one of each, tied", np.array([1.0]), np.array([1.0])),
        ("constant", np.full(30, 2.5), np.full(7, 2.5)),
        ("apart", np.arange(20.0), np.arange(20.0, 50.0)),
        ("the wrong way", np.arange(20.0, 50.0), np.arange(20.0)),
        ("all tied but one", np.zeros(100), np.r_[np.zeros(99), 1.0]),
        ("huge", rng.normal(0, 1e300, 200), rng.normal(1e299, 1e300, 300)),
        ("tiny", rng.normal(0, 1e-300, 200), rng.normal(1e-301, 1e-300, 300)),
        ("far from 0..1", 1e6 + rng.normal(size=500), 1e6 + 1 + rng.normal(size=400)),
        ("votes", rng.binomial(10, 0.3, 400).astype(float), rng.binomial(10, 0.5, 300).astype(float)),
    ]
    for n, m in ((1, 50), (50, 1), (19, 21), (20, 20), (40, 100), (1000, 10), (333, 777)):
        for levels in (2, 5, 10**9):
            scores = [rng.integers(0, levels, size) + shift for size, shift in ((n, 0), (m, levels // 7))]
            given.append((f"{n} and {m} in {levels} levels", scores[0] * 1.0, scores[1] * 1.0))
    return given


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("id_scores", "ood_scores"), [one[1:] for one in inputs()], ids=[one[0] for one in inputs()]
)
def test_it_is_what_scikit_learn_says(name: str, id_scores: np.ndarray, ood_scores: np.ndarray) -> None:
    is_ood = np.r_[np.zeros(len(id_scores), int), np.ones(len(ood_scores), int)]
    expected = REFERENCE[name](is_ood, np.r_[id_scores, ood_scores])
    assert getattr(metrics, name)(id_scores, ood_scores) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("id_scores", "ood_scores"),
    [one[1:] for one in inputs()] + [(np.array([-np.inf, 0, np.inf]), np.array([0, 1e308, np.inf, np.inf]))],
)
def test_the_auroc_counts_pairs_and_a_tie_as_half(id_scores: np.ndarray, ood_scores: np.ndarray) -> None:
    above = ood_scores[:, None] > id_scores
    expected = (above + 0.5 * (ood_scores[:, None] == id_scores)).mean()
    assert metrics.auroc(id_scores, ood_scores) == pytest.approx(expected, abs=1e-12)
    # as the bootstrap takes it, from counts of the distinct scores
    counted = metrics._auroc(*metrics._counts(id_scores, ood_scores))
    assert counted == pytest.approx(expected, abs=1e-12)


def test_higher_is_more_ood() -> None:
    low, high = [0.0, 1.0], [2.0, 3.0]
    assert [getattr(metrics, name)(low, high) for name in ALL] == [1, 0, 0, 1, 1]
    assert metrics.auroc(high, low) == 0


def test_the_two_false_positive_rates_are_of_the_two_sides() -> None:
    # one OOD image of four looks like ID; all ID images are accepted by 4
    id_scores, ood_scores = np.arange(1.0, 5.0), np.array([0.0, 8.0, 9.0, 10.0])
    assert metrics.fpr_at_95_id_recall(id_scores, ood_scores) == 0.25
    assert metrics.fpr_at_95_ood_recall(id_scores, ood_scores) == 1.0


@pytest.mark.parametrize("n", [20, 40, 60, 100, 1000, 2000])
def test_exactly_95_percent_is_enough(n: int) -> None:
    # the last twentieth of ID lies above every OOD score
    id_scores = np.r_[np.zeros(n - n // 20), np.full(n // 20, 9.0)]
    assert metrics.fpr_at_95_id_recall(id_scores, [1.0]) == 0
    assert metrics.fpr_at_95_id_recall(id_scores[:-1], [1.0]) == 0
    assert metrics.fpr_at_95_id_recall(np.r_[id_scores, 9.0], [1.0]) == 1


def test_infinities_have_their_place() -> None:
    assert metrics.auroc([-np.inf, 0.0], [1.0, np.inf]) == 1
    assert metrics.auroc([np.inf], [np.inf]) == 0.5


def test_numbers_of_any_kind() -> None:
    assert metrics.auroc(np.array([1, 2], np.int8), np.array([2.5], np.float16)) == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("id_scores", "ood_scores", "message"),
    [
        ([], [1.0], r"ID scores must be one row of at least one number, got shape \(0,\)"),
        ([1.0], [], "OOD scores must be"),
        ([[1.0]], [1.0], r"ID scores must be one row.*\(1, 1\)"),
        (1.0, [1.0], r"ID scores must be one row.*\(\)"),
        ([1.0, np.nan], [1.0], "ID scores: 1 of 2 are NaN"),
        ([1.0], [np.nan, np.nan], "OOD scores: 2 of 2 are NaN"),
    ],
)
def test_bad_scores_are_refused(name: str, id_scores: list, ood_scores: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(id_scores, ood_scores)


# --------------------------------------------------------------------------------------------------
# Bootstrap
# --------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_plain_resampling() -> None:
    rng = np.random.default_rng(1)
    id_scores, ood_scores = rng.normal(0, 1, 150).round(1), rng.normal(1, 1, 80).round(1)
    low, high = metrics.bootstrap_interval(id_scores, ood_scores, n=2000, seed=3)
    plain = [metrics.auroc(rng.choice(id_scores, 150), rng.choice(ood_scores, 80)) for _ in range(2000)]
    assert (low, high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.03)
    assert low < metrics.auroc(id_scores, ood_scores) < high


def test_the_interval_of_the_auroc_has_the_width_that_theory_says() -> None:
    # Hanley and McNeil 1982: standard error of an AUROC of two exponential-like classes
    rng = np.random.default_rng(2)
    id_scores, ood_scores = rng.normal(0, 1, 2000), rng.normal(1, 1, 1000)
    a = metrics.auroc(id_scores, ood_scores)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 999 * (q1 - a * a) + 1999 * (q2 - a * a)) / 2_000_000)
    low, high = metrics.bootstrap_interval(id_scores, ood_scores)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=50), rng.normal(size=50)
    first, again, other = (metrics.bootstrap_interval(*scores, n=50, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_a_difference_of_the_same_scores_is_nothing() -> None:
    rng = np.random.default_rng(4)
    scores = rng.normal(size=60), rng.normal(size=40)
    assert metrics.paired_bootstrap_auroc_difference(*scores, *scores) == (0.0, (0.0, 0.0))
    # nor does a change of scale move a rank
    assert metrics.paired_bootstrap_auroc_difference(*scores, *(np.exp(s) for s in scores))[1] == (0.0, 0.0)


def test_pairing_sees_a_small_difference_and_knows_its_sign() -> None:
    rng = np.random.default_rng(5)
    id_b, ood_b = rng.normal(0, 1, 400), rng.normal(1, 1, 300)
    ood_a = ood_b + 0.1
    difference, (low, high) = metrics.paired_bootstrap_auroc_difference(id_b, ood_a, id_b, ood_b)
    assert difference == pytest.approx(metrics.auroc(id_b, ood_a) - metrics.auroc(id_b, ood_b))
    assert 0 < low < difference < high
    # unpaired, the intervals of the two lie over each other
    assert metrics.bootstrap_interval(id_b, ood_a)[0] < metrics.bootstrap_interval(id_b, ood_b)[1]
    back, (low_back, high_back) = metrics.paired_bootstrap_auroc_difference(id_b, ood_b, id_b, ood_a)
    assert (back, low_back, high_back) == pytest.approx((-difference, -high, -low))


def test_bad_bootstraps_are_refused() -> None:
    with pytest.raises(ValueError, match="n = 0 resamples is below 1"):
        metrics.bootstrap_interval([1], [2], n=0)
    with pytest.raises(ValueError, match="2 ID scores by a and 1 by b are not of the same images"):
        metrics.paired_bootstrap_auroc_difference([1, 2], [2], [1], [2])
    with pytest.raises(ValueError, match="1 OOD scores by a and 2 by b"):
        metrics.paired_bootstrap_auroc_difference([1], [2], [1], [2, 3])


def test_a_thousand_resamples_take_seconds() -> None:
    rng = np.random.default_rng(6)
    scores = [rng.normal(size=size) for size in (4000, 2000, 4000, 2000)]
    started = time.process_time()
    metrics.paired_bootstrap_auroc_difference(*scores)
    assert time.process_time() - started < 5


def test_the_examples_run() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = doctest.testmod(metrics)
    assert result.attempted >= 7 and result.failed == 0
