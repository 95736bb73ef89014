from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, confusion_matrix, normalized_mutual_info_score

from sdviz.scan import metrics
from sdviz.scan.metrics import agreement


def test_the_example() -> None:
    assert doctest.testmod(metrics).failed == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n_clusters", "n_classes"), [(4, 4), (5, 3), (3, 5), (1, 4), (4, 1)])
def test_against_scikit_learn_and_every_matching_there_is(n_clusters: int, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, n_classes, 60)
    clusters = np.where(rng.random(60) < 0.6, classes % n_clusters, rng.integers(0, n_clusters, 60))
    found = agreement(clusters, classes, n_clusters, n_classes)
    assert found.n_images == 60
    assert found.nmi == pytest.approx(normalized_mutual_info_score(classes, clusters))
    assert found.ari == pytest.approx(adjusted_rand_score(classes, clusters))
    m = max(n_clusters, n_classes)
    theirs = confusion_matrix(clusters, classes, labels=range(m))[:n_clusters, :n_classes]
    assert (found.confusion == theirs).all()
    # the best of all matchings, one to one
    square = np.zeros((m, m), int)
    square[:n_clusters, :n_classes] = theirs
    best = max(square[range(m), list(order)].sum() for order in itertools.permutations(range(m)))
    assert found.accuracy == pytest.approx(best / 60)
    matched = [(i, j) for i, j in enumerate(found.matching) if j >= 0]
    assert len(matched) == min(n_clusters, n_classes) == len({j for _, j in matched})
    assert sum(theirs[i, j] for i, j in matched) == best


def test_by_hand() -> None:
    # cluster 0: three of class 1; cluster 1: two of class 0; cluster 2: one of class 0 and one of class 1
    clusters = np.array([0, 0, 0, 1, 1, 2, 2])
    classes = np.array([1, 1, 1, 0, 0, 0, 1])
    found = agreement(clusters, classes, 3, 2)
    assert found.confusion.tolist() == [[0, 3], [2, 0], [1, 1]]
    assert found.matching.tolist() == [1, 0, -1]
    assert found.accuracy == pytest.approx(5 / 7)


def test_names_do_not_matter_and_chance_is_nought() -> None:
    classes = np.repeat([0, 1, 2], 100)
    for names in itertools.permutations(range(3)):
        found = agreement(np.array(names)[classes], classes, 3, 3)
        assert (found.accuracy, found.nmi, found.ari) == pytest.approx((1, 1, 1))
        assert found.matching[list(names)].tolist() == [0, 1, 2]
    one = agreement(np.zeros(300, int), classes, 3, 3)
    assert (one.accuracy, one.nmi, one.ari) == pytest.approx((1 / 3, 0, 0))
    guessed = agreement(np.random.default_rng(0).integers(0, 3, 300), classes, 3, 3)
    assert abs(guessed.ari) < 0.03 and guessed.nmi < 0.03


def test_unknown_classes_do_not_count() -> None:
    clusters = np.array([0, 0, 1, 1, 1, 0])
    classes = np.array([0, 0, 1, -1, -1, 1])
    found = agreement(clusters, classes, 2, 2)
    known = agreement(clusters[classes >= 0], classes[classes >= 0], 2, 2)
    assert found.n_images == 4 == found.confusion.sum()
    assert (found.accuracy, found.nmi, found.ari) == (0.75, known.nmi, known.ari)
    # wherever they lie, even in clusters that are none
    assert agreement(np.array([0, 1, 9]), np.array([1, 0, -1]), 2, 2).accuracy == 1


def test_more_clusters_than_images_of_a_class_stay_without_one() -> None:
    found = agreement(np.array([0, 3]), np.array([1, 0]), 5, 2)
    assert found.matching.tolist() == [1, -1, -1, 0, -1]
    assert found.accuracy == 1
    assert math.isfinite(found.nmi) and math.isfinite(found.ari)


@pytest.mark.parametrize(
    ("clusters", "classes", "expected"),
    [
        ([0, 1], [0], r"clusters \(2,\) and classes \(1,\) do not fit"),
        ([0, 1], [-1, -1], "no image with a known class"),
        ([], [], "no image with a known class"),
        ([0, -1], [0, 1], r"clusters must lie in 0\.\.1, not -1\.\.0"),
        ([0, 2], [0, 1], r"clusters must lie in 0\.\.1, not 0\.\.2"),
        ([0, 1], [0, 2], r"classes must lie in 0\.\.1, not 0\.\.2"),
    ],
)
def test_what_cannot_be_compared_is_refused(clusters: list[int], classes: list[int], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        agreement(np.array(clusters, int), np.array(classes, int), 2, 2)
