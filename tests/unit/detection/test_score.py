from __future__ import annotations

import doctest
import time

import numpy as np
import pytest

from sdviz.detection import score
from sdviz.detection.score import SDScore


def on_a_line(*places: float) -> np.ndarray:
    return np.array(places, float)[:, None]


def brute_force(
    queries: np.ndarray, known: np.ndarray, outliers: np.ndarray, k: int, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    totals, votes = [], []
    for q in queries:
        to_id, to_out = ((known - q) ** 2).sum(1), ((outliers - q) ** 2).sum(1)
        both = np.concatenate([to_id, to_out])
        vote = int((np.argsort(both, kind="stable")[:k] >= len(known)).sum())
        totals.append(np.sort(to_id)[:k].sum() + alpha * vote)
        votes.append(vote)
    return np.array(totals), np.array(votes)


@pytest.mark.parametrize("n_outliers", [3, 40, 900])
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.3), (10, 0.3), (10, 0.0), (37, 2.0)])
def test_it_is_eq_6(k: int, alpha: float, n_outliers: int) -> None:
    rng = np.random.default_rng(k)
    known, outliers = rng.normal(size=(300, 6)), rng.normal(0.5, 1, (n_outliers, 6))
    queries = rng.normal(0.3, 1, (80, 6))
    s = SDScore(k, alpha, normalize=False).fit(known, outliers).score(queries)
    totals, votes = brute_force(queries, known, outliers, k, alpha)
    np.testing.assert_allclose(s.total, totals, rtol=1e-5)
    np.testing.assert_array_equal(s.votes, votes)
    assert s.votes.dtype == np.int64 and s.votes.max() > 0
    np.testing.assert_allclose(s.distance, (s.id_distances**2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(s.total, s.distance + alpha * s.votes, rtol=1e-12)
    for distances in (s.id_distances, s.mixed_distances):
        assert distances.shape == (80, k) and (np.diff(distances, axis=1) >= 0).all()
    for row in range(80):
        for place in range(k):
            source = outliers if s.mixed_is_outlier[row, place] else known
            true = np.linalg.norm(source[s.mixed_indices[row, place]] - queries[row])
            assert s.mixed_distances[row, place] == pytest.approx(true, rel=1e-5)


def test_by_hand() -> None:
    # ID at 0, 1, 5, 6; outliers at 2, 5.5; the query at 4
    s = SDScore(2, 0.5, normalize=False).fit(on_a_line(0, 1, 5, 6), on_a_line(2, 5.5)).score(on_a_line(4))
    assert s.id_distances.tolist() == [[1, 2]] and s.id_indices.tolist() == [[2, 3]]
    assert s.mixed_distances.tolist() == [[1, 1.5]] and s.mixed_indices.tolist() == [[2, 1]]
    assert s.mixed_is_outlier.tolist() == [[False, True]]
    assert (s.distance.tolist(), s.votes.tolist(), s.total.tolist()) == ([5], [1], [5.5])


def test_higher_is_more_ood() -> None:
    s = SDScore(2, 0.5, False).fit(on_a_line(0, 1, 2), on_a_line(10, 11, 12)).score(on_a_line(1, 4, 11))
    assert s.votes.tolist() == [0, 0, 2]
    assert (np.diff(s.total) > 0).all()


def test_at_the_same_distance_id_comes_before_outlier_and_the_earlier_row_first() -> None:
    known, outliers = on_a_line(3, 1, 3), on_a_line(1, 3, 1)
    s = SDScore(3, 1.0, False).fit(known, outliers).score(on_a_line(2))
    assert s.votes.tolist() == [0]
    assert s.mixed_indices.tolist() == [[0, 1, 2]]
    s = SDScore(3, 1.0, False).fit(on_a_line(3, 1, 9, 9), outliers).score(on_a_line(2))
    assert s.votes.tolist() == [1]
    assert s.mixed_indices.tolist() == [[0, 1, 0]] and s.mixed_is_outlier.tolist() == [[False, False, True]]


def test_an_outlier_that_copies_an_id_image_has_no_vote_before_it() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=(400, 33)).astype(np.float32)
    s = SDScore(1).fit(known, known.copy()).score(known + 1e-3)
    assert s.votes.sum() == 0


def test_everything_alike_leaves_no_vote() -> None:
    s = SDScore(10).fit(np.ones((50, 4)), np.ones((50, 4))).score(np.ones((7, 4)))
    assert s.total.tolist() == [0] * 7


def test_no_outliers_no_votes() -> None:
    known, queries = on_a_line(0, 1, 2), on_a_line(5, 6)
    for outliers in (None, np.empty((0, 1))):
        s = SDScore(2, 0.3, False).fit(known, outliers).score(queries)
        assert s.votes.tolist() == [0, 0]
        np.testing.assert_array_equal(s.total, s.distance)
        np.testing.assert_array_equal(s.mixed_distances, s.id_distances)
        assert not s.mixed_is_outlier.any()


# --------------------------------------------------------------------------------------------------
# Ids
# --------------------------------------------------------------------------------------------------


def test_a_query_of_the_bank_is_its_neighbour_in_neither_search() -> None:
    known, outliers = on_a_line(0, 1, 3), on_a_line(0.5)
    fitted = SDScore(1, 1.0, False).fit(known, outliers, id_ids=["a", "b", "c"])
    own = fitted.score(known, ids=["a", "b", "c"])
    assert own.id_indices.tolist() == [[1], [0], [1]]
    assert own.votes.tolist() == [1, 1, 0]
    # no ids, no exclusion
    plain = fitted.score(known)
    assert plain.distance.tolist() == [0, 0, 0] and plain.votes.tolist() == [0, 0, 0]
    without_ids = SDScore(1, 1.0, False).fit(known, outliers).score(known, ids=["a", "b", "c"])
    assert without_ids.distance.tolist() == [0, 0, 0]


def test_an_outlier_of_the_bank_is_its_neighbour_neither() -> None:
    fitted = SDScore(2, 1.0, False).fit(on_a_line(0, 10), on_a_line(4, 5), None, ["o", "p"])
    s = fitted.score(on_a_line(4), ids=["o"])
    assert s.mixed_indices.tolist() == [[1, 0]] and s.mixed_is_outlier.tolist() == [[True, False]]
    assert fitted.score(on_a_line(4)).votes.tolist() == [2]
    # the only outlier there is
    alone = SDScore(2, 1.0, False).fit(on_a_line(0, 10), on_a_line(4), None, ["o"])
    s = alone.score(on_a_line(4, 4), ids=["o", "x"])
    assert s.votes.tolist() == [0, 1]
    assert np.isfinite(s.mixed_distances).all() and (s.mixed_indices >= 0).all()


def test_outliers_of_an_image_do_not_vote_on_it() -> None:
    # two outliers of "a", one of "b"
    fitted = SDScore(1, 1.0, False).fit(
        on_a_line(0, 10, 20), on_a_line(1, 2, 9), ["a", "b", "c"], ["a~0", "a~1", "b~0"], ["a", "a", "b"]
    )
    s = fitted.score(on_a_line(0, 10, 0), ids=["a", "b", "x"])
    # nearest of the rest: of "a" the outlier at 9, of "b" the outlier at 2, of a stranger the image "a" itself
    assert s.mixed_distances.tolist() == [[9], [8], [0]]
    assert s.mixed_is_outlier.tolist() == [[True], [True], [False]]
    assert s.mixed_indices.tolist() == [[2], [1], [0]]
    # an outlier skips itself, not the others of its source
    s = fitted.score(on_a_line(1), ids=["a~0"])
    assert s.mixed_distances.tolist() == [[1]]
    # sources without outliers' own ids
    s = SDScore(1, 1.0, False).fit(on_a_line(0, 10), on_a_line(1), outlier_sources=["a"])
    assert s.score(on_a_line(0.9), ids=["a"]).votes.tolist() == [0]
    assert s.score(on_a_line(0.9), ids=["b"]).votes.tolist() == [1]


# --------------------------------------------------------------------------------------------------
# Length and other k
# --------------------------------------------------------------------------------------------------


def test_features_are_brought_to_unit_length_or_not() -> None:
    rng = np.random.default_rng(1)
    known, outliers, queries = (rng.normal(size=(n, 5)) for n in (60, 50, 20))
    stretch = rng.uniform(0.1, 100, (60, 1))
    s = SDScore(5).fit(known, outliers).score(queries)
    again = SDScore(5).fit(known * stretch, outliers * 7).score(queries * 1e-3)
    np.testing.assert_allclose(s.total, again.total, rtol=1e-5)
    np.testing.assert_array_equal(s.id_indices, again.id_indices)
    raw = SDScore(5, normalize=False).fit(known * stretch, outliers).score(queries)
    assert (raw.id_indices != s.id_indices).any()
    assert s.distance.max() <= 5 * 4


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_features_have_a_length(scale: float) -> None:
    rng = np.random.default_rng(2)
    known = rng.normal(size=(30, 5))
    s, t = (SDScore(3).fit(known * f).score(known * f) for f in (1.0, scale))
    np.testing.assert_allclose(s.total, t.total, rtol=1e-4)


def test_a_feature_of_length_0_stays_where_it_is() -> None:
    s = SDScore(1).fit(np.eye(3)).score(np.zeros((1, 3)))
    assert s.distance.tolist() == [1.0]


def test_any_smaller_k_and_alpha_from_one_search() -> None:
    rng = np.random.default_rng(3)
    known, outliers, queries = (rng.normal(size=(n, 4)) for n in (200, 30, 25))
    ids = [f"q{i}" for i in range(25)]
    wide = SDScore(7).fit(known, outliers, id_ids=ids + [f"r{i}" for i in range(175)]).search(queries, ids, 60)
    for k, alpha in ((1, 0.3), (7, 0.1), (60, 1.0)):
        direct = SDScore(k, alpha).fit(known, outliers, ids + [f"r{i}" for i in range(175)])
        a, b = direct.score(queries, ids), wide.scores(k, alpha)
        for name, value in vars(a).items():
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
    for k in (0, 61):
        with pytest.raises(ValueError, match=rf"k = {k} is outside 1\.\.60"):
            wide.scores(k, 0.3)


def test_one_image_against_a_bank_is_fast_enough_for_a_slider() -> None:
    rng = np.random.default_rng(4)
    fitted = SDScore().fit(rng.normal(size=(20_000, 128)), rng.normal(size=(20_000, 128)))
    fitted.search(rng.normal(size=(1, 128)), k=100)
    started = time.process_time()
    wide = fitted.search(rng.normal(size=(1, 128)), k=100)
    searched = time.process_time()
    wide.scores(37, 0.5)
    assert searched - started < 0.2 and time.process_time() - searched < 0.05


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_in_one_line() -> None:
    good = np.eye(4)
    for make, message in (
        (lambda: SDScore(0), "k = 0 is below 1"),
        (lambda: SDScore(alpha=-0.1), "alpha = -0.1 is not a number from 0 up"),
        (lambda: SDScore(alpha=float("nan")), "alpha = nan"),
        (lambda: SDScore().score(good), "no reference features yet: call fit first"),
        (lambda: SDScore(5).fit(good), "k = 5 neighbours of 4 ID images: there are too few"),
        (lambda: SDScore(1).fit(good, np.eye(3)), "outlier features have 3 columns and ID features 4"),
        (lambda: SDScore(1).fit(good, np.full((2, 4), np.nan)), "outlier features: 2 of 2 rows hold a NaN"),
        (lambda: SDScore(1).fit(np.full((2, 4), np.inf)), "ID features: 2 of 2 rows hold a NaN or infinity"),
        (lambda: SDScore(1).fit(good).score(np.full((1, 4), np.nan)), "features: 1 of 1 rows hold a NaN"),
        (lambda: SDScore(1).fit(good).score(np.eye(3)), "features have 3 columns and the references 4"),
        (lambda: SDScore(1).fit(good, id_ids=["a"]), "4 rows and 1 ids"),
        (lambda: SDScore(4).fit(good, id_ids=list("abcd")).score(good, list("abcd")), r"outside 1\.\.3"),
        (lambda: SDScore(1).fit(good).search(good, k=9), r"k = 9 is outside 1\.\.4"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_no_images_have_no_scores() -> None:
    s = SDScore(2).fit(np.eye(4), np.eye(4)).score(np.empty((0, 4)))
    assert s.total.shape == (0,) and s.mixed_indices.shape == (0, 2)


def test_the_example_runs() -> None:
    result = doctest.testmod(score)
    assert result.attempted == 3 and result.failed == 0
