from __future__ import annotations

import numpy as np
import pytest

from sdviz.outliers import check_labels, draw_target_labels


@pytest.mark.parametrize("label", [0, 4, 9])
def test_every_other_cluster_comes_within_three_sigma_of_its_share(label: int) -> None:
    n, c = 100_000, 10
    ids = np.char.add("shapes:train:", np.arange(n).astype(str))
    counts = np.bincount(draw_target_labels(np.full(n, label), ids, c, seed=0), minlength=c)
    share = 1 / (c - 1)
    assert counts[label] == 0
    assert len(counts) == c
    others = np.delete(counts, label)
    # the slot among the others hangs on (seed, id) alone, so these are the same nine counts for every label:
    # 3 sigma fails by chance for one seed in forty, and seed 0 is not that one
    assert np.abs(others - n * share).max() < 3 * (n * share * (1 - share)) ** 0.5


def test_draws_over_many_seeds_are_as_even_as_chance_makes_them() -> None:
    ids = np.array([f"{i}" for i in range(900)])
    counts = np.array(
        [np.bincount(draw_target_labels(np.full(900, 3), ids, 10, seed), minlength=10) for seed in range(100)]
    )
    others = np.delete(counts, 3, axis=1)
    chi_square = ((others - 100) ** 2 / 100).sum(1)
    # 8 degrees of freedom: mean 8 and variance 16, if the draws are even and no more even than chance
    assert chi_square.mean() == pytest.approx(8, abs=3 * (16 / 100) ** 0.5)


def test_the_target_depends_on_seed_and_id_alone() -> None:
    ids = np.array([f"id {i}" for i in range(200)])
    labels = np.arange(200) % 10
    targets = draw_target_labels(labels, ids, 10, seed=0)
    assert (targets != labels).all()
    order = np.random.default_rng(0).permutation(200)[:50]
    assert (draw_target_labels(labels[order], ids[order], 10, seed=0) == targets[order]).all()
    same = (draw_target_labels(labels, ids, 10, seed=1) == targets).mean()
    assert 0.02 < same < 0.25


def test_two_clusters_leave_one_choice() -> None:
    assert draw_target_labels(np.array([0, 1, 1]), np.array(["a", "b", "c"]), 2, 0).tolist() == [1, 0, 0]


def test_no_wrong_label_without_a_second_cluster() -> None:
    with pytest.raises(ValueError, match="at least 2 clusters, there is 1"):
        draw_target_labels(np.array([0]), np.array(["a"]), 1, 0)


@pytest.mark.parametrize("bad", [-1, 10])
def test_no_wrong_label_for_an_unknown_one(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"labels: {bad} is outside 0\.\.9"):
        draw_target_labels(np.array([3, bad]), np.array(["a", "b"]), 10, 0)


def test_check_labels_names_the_label_and_its_range() -> None:
    check_labels("target_labels", np.array([0, 2]), 3)
    with pytest.raises(ValueError, match=r"target_labels: 3 is outside 0\.\.2"):
        check_labels("target_labels", np.array([0, 3]), 3)
