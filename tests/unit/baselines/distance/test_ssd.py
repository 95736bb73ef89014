from __future__ import annotations

import numpy as np
from scipy.spatial.distance import mahalanobis

from sdviz.baselines import Images
from tests.baselines import KNOWN, QUERIES, fit, unit


def test_ssd_is_scipys_mahalanobis_distance() -> None:
    known = unit(KNOWN)
    precision = np.linalg.inv(np.cov(known, rowvar=False, bias=True))
    expected = [mahalanobis(q, known.mean(0), precision) ** 2 for q in unit(QUERIES)]
    assert np.allclose(fit("ssd").score(Images(features=QUERIES)), expected, rtol=1e-4)
