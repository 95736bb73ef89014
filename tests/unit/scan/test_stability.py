import numpy as np
import pytest

from sdviz.scan.stability import Stability, cluster_stability, supported


def groups(n_groups: int, spread: float = 0.1) -> np.ndarray:
    """Points float32 (600,16) around that many centres of length 1."""
    rng = np.random.default_rng(0)
    centres = np.eye(16)[:n_groups]
    return (centres[np.arange(600) % n_groups] + spread * rng.normal(size=(600, 16))).astype(np.float32)


@pytest.mark.parametrize("n_groups", [3, 6, 9])
def test_the_number_of_groups_is_found(n_groups: int) -> None:
    found = list(cluster_stability(groups(n_groups), range(2, 13)))
    assert [one.n_clusters for one in found] == list(range(2, 13))
    assert supported(found) == n_groups
    assert found[n_groups - 2].mean > 0.99
    assert all(one.mean < 0.97 for one in found if one.n_clusters > n_groups)


def test_noise_supports_no_number() -> None:
    noise = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    assert max(one.mean for one in cluster_stability(noise, [5, 10])) < 0.4


def test_the_seed_decides() -> None:
    x = groups(6, 0.4)
    a, b, c = (list(cluster_stability(x, [4, 6], seed=seed)) for seed in (0, 0, 1))
    assert a == b and a != c


def test_the_largest_of_equally_good_numbers_is_taken() -> None:
    found = [
        Stability(2, 0.90, 0.05),
        Stability(5, 0.92, 0.03),
        Stability(8, 0.90, 0.2),
        Stability(9, 0.88, 0.9),
    ]
    assert supported(found) == 8


@pytest.mark.parametrize("numbers", [[1], [600], [2, 601]])
def test_numbers_that_cannot_be_are_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="clusters of 480 images in 5 samples"):
        list(cluster_stability(groups(3), numbers))
