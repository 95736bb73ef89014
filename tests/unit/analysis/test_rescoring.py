from __future__ import annotations

import numpy as np
import pytest

from sdviz.analysis import Evidence
from sdviz.analysis.rescoring import index_over_banks, rescorer, stored_scores
from sdviz.detection.score import SDScore


def test_rescoring_by_the_own_settings_gives_the_stored_scores(evidence: Evidence) -> None:
    own = evidence.bundle.manifest.score
    assert own is not None
    again = rescorer(evidence, own.normalize).scores(own.k, own.alpha)
    for name, one in stored_scores(evidence).items():
        assert np.allclose(again[name].total, one.total, atol=1e-12)
        assert np.array_equal(again[name].votes, one.votes)


def test_pages_and_the_bundle_give_one_answer_for_images_of_the_banks(evidence: Evidence) -> None:
    own, banks = evidence.bundle.manifest.score, evidence.banks
    assert own is not None and banks.outlier_sources is not None
    sides = ((banks.id_features, banks.id_ids), (banks.outlier_features, banks.outlier_ids))
    for features, ids in ((x[:60], names[:60]) for x, names in sides):
        api = evidence.bundle.scorer.score(features, ids)
        page = index_over_banks(evidence, own.normalize).search(features, ids).scores(own.k, own.alpha)
        assert np.array_equal(api.total, page.total) and np.array_equal(api.votes, page.votes)
        # no image, and none of its own outliers, is among its voters
        rows = np.where(api.mixed_is_outlier, api.mixed_indices, 0)
        voters = np.where(api.mixed_is_outlier, banks.outlier_ids[rows], "")
        sources = np.where(api.mixed_is_outlier, banks.outlier_sources[rows], "")
        assert not (voters == ids[:, None]).any() and not (sources == ids[:, None]).any()


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
