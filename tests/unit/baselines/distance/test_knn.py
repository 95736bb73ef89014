from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from sdviz.baselines import Images
from tests.baselines import KNOWN, QUERIES, fit, unit


def test_knn_is_scikit_learns_fiftieth_neighbour_at_unit_length() -> None:
    distances, _ = NearestNeighbors(n_neighbors=50).fit(unit(KNOWN)).kneighbors(unit(QUERIES))
    assert np.allclose(fit("knn").score(Images(features=QUERIES)), distances[:, -1], rtol=1e-5)


def test_knn_is_scikit_learns_of_raw_features_where_asked() -> None:
    distances, _ = NearestNeighbors(n_neighbors=5).fit(KNOWN).kneighbors(QUERIES)
    got = fit("knn", k=5, normalize=False).score(Images(features=QUERIES))
    assert np.allclose(got, distances[:, -1], rtol=1e-5)
