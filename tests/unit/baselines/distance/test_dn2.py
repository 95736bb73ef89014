from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from sdviz.baselines import Images
from tests.baselines import KNOWN, QUERIES, fit, unit


def test_dn2_is_scikit_learns_two_neighbours() -> None:
    distances, _ = NearestNeighbors(n_neighbors=2).fit(KNOWN.astype(np.float64)).kneighbors(QUERIES)
    assert np.allclose(fit("dn2").score(Images(features=QUERIES)), (distances**2).sum(1), rtol=1e-5)


def test_at_unit_length_it_is_the_same_of_directions() -> None:
    distances, _ = NearestNeighbors(n_neighbors=3).fit(unit(KNOWN)).kneighbors(unit(QUERIES))
    got = fit("dn2", k=3, normalize=True).score(Images(features=QUERIES))
    assert np.allclose(got, (distances**2).sum(1), rtol=1e-5)
    assert np.allclose(fit("dn2", k=3, normalize=True).score(Images(features=7 * QUERIES)), got, rtol=1e-5)


def test_an_image_is_not_its_own_neighbour() -> None:
    ids = np.array([f"a/b/{i}" for i in range(len(KNOWN))])
    method = fit("dn2", ids=ids)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(KNOWN.astype(np.float64)).kneighbors(KNOWN[:5])
    got = method.score(Images(features=KNOWN[:5], ids=ids[:5]))
    assert np.allclose(got, (distances[:, 1:] ** 2).sum(1), rtol=1e-5)
    assert (method.score(Images(features=KNOWN[:5])) < got).all()
