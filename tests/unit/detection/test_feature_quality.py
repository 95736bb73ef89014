import numpy as np
import pytest

from sdviz.detection.feature_quality import effective_rank, knn_accuracy


def test_equal_variance_in_all_directions_is_full_rank() -> None:
    x = np.concatenate([np.eye(8), -np.eye(8)])
    assert effective_rank(x) == pytest.approx(8)


def test_two_directions_of_which_one_has_three_quarters() -> None:
    # unit vectors at +-a to an axis: variances sin^2 and, around the mean, those of a second pair
    x = np.array([[1, 0, 0], [-1, 0, 0]] * 3 + [[0, 1, 0], [0, -1, 0]])
    assert effective_rank(x) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_points_on_a_line_have_rank_one_and_equal_points_none() -> None:
    assert effective_rank(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(1)
    assert effective_rank(np.ones((5, 3))) == 0


def test_the_length_of_features_does_not_count() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6))
    scale = np.random.default_rng(1).uniform(0.1, 10, (50, 1))
    assert effective_rank(x) == pytest.approx(effective_rank(x * scale))


def test_groups_know_their_label_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    groups = np.eye(4)[labels] + 0.05 * rng.normal(size=(200, 4))
    assert knn_accuracy(groups, labels) == 1
    assert knn_accuracy(rng.normal(size=(200, 4)), labels) < 0.45


def test_a_label_is_not_its_own_neighbour_and_the_nearest_settles_a_tie() -> None:
    angles = np.deg2rad([0, 10, 25, 90])
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    # nearest two of each: 1 2 | 0 2 | 1 0 | 2 1
    assert knn_accuracy(x, np.array([0, 0, 1, 1]), k=1) == 0.75
    assert knn_accuracy(x, np.array([0, 0, 1, 1]), k=2) == 0.75
    assert knn_accuracy(x, np.array([0, 1, 0, 0]), k=2) == 0.25


def test_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="1 images have no neighbours"):
        knn_accuracy(np.ones((1, 2)), np.zeros(1, int))
