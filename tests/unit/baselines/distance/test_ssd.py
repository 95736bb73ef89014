from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from sdviz.baselines import Images
from tests.baselines import KNOWN, QUERIES, fit, unit


@pytest.mark.parametrize("normalize", [True, False])
def test_ssd_is_scipys_mahalanobis_distance(normalize: bool) -> None:
    known, queries = (unit(one) if normalize else one.astype(float) for one in (KNOWN, QUERIES))
    precision = np.linalg.inv(np.cov(known, rowvar=False, bias=True))
    expected = [mahalanobis(q, known.mean(0), precision) ** 2 for q in queries]
    got = fit("ssd", normalize=normalize).score(Images(features=QUERIES))
    assert np.allclose(got, expected, rtol=1e-4)
    # the authors have directions
    assert np.array_equal(fit("ssd").score(Images(features=QUERIES)), got) == normalize
