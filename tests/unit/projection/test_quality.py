from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from sdviz.projection import quality, trustworthiness


@pytest.mark.parametrize(("n", "k"), [(50, 5), (300, 10), (700, 12)])
def test_trustworthiness_is_that_of_scikit_learn(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 16))
    for points in (x[:, :2], rng.normal(size=(n, 2))):
        assert trustworthiness(x, points, k) == pytest.approx(sklearn_trustworthiness(x, points, n_neighbors=k))


def test_trustworthiness_of_many_points_is_close_on_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "MAX_QUERIES", 300)
    x = np.random.default_rng(0).normal(size=(900, 8))
    want = sklearn_trustworthiness(x, x[:, :2], n_neighbors=10)
    assert trustworthiness(x, x[:, :2], 10) == pytest.approx(want, abs=0.02)


def test_trustworthiness_of_too_few_points_is_not_a_number() -> None:
    assert np.isnan(trustworthiness(np.zeros((2, 3)), np.zeros((2, 2))))
