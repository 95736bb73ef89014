from __future__ import annotations

import numpy as np
import pytest

from sdviz.analysis import Evidence
from sdviz.analysis.rescoring import rescorer, stored_scores
from sdviz.detection.score import SDScore


def test_rescoring_by_the_own_settings_gives_the_stored_scores(evidence: Evidence) -> None:
    own = evidence.bundle.manifest.score
    assert own is not None
    again = rescorer(evidence, own.normalize).scores(own.k, own.alpha)
    for name, one in stored_scores(evidence).items():
        assert np.allclose(again[name].total, one.total, atol=1e-12)
        assert np.array_equal(again[name].votes, one.votes)


@pytest.mark.parametrize(("k", "alpha", "normalize"), [(1, 0.0, True), (7, 0.5, False), (50, 0.01, True)])
def test_rescoring_equals_a_score_of_its_own(evidence: Evidence, k: int, alpha: float, normalize: bool) -> None:
    seen: list[float] = []
    found = rescorer(evidence, normalize, seen.append).scores(k, alpha)
    assert seen[-1] == 1.0 and seen == sorted(seen)
    banks = evidence.banks
    score = SDScore(k, alpha, normalize).fit(banks.id_features, banks.outlier_features, id_ids=banks.id_ids)
    for name, one in evidence.sets.items():
        assert one.features is not None
        expected = score.score(one.features, one.ids)
        assert np.allclose(found[name].total, expected.total, rtol=1e-12)
        assert np.array_equal(found[name].votes, expected.votes)
