from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.duplicates import ood_pairs, outlier_pairs, source_pairs
from sdviz.bundle import Bundle
from tests.tiny_bundle import save_tiny_bundle


@pytest.mark.parametrize("normalize", [True, False])
def test_pairs_are_the_nearest_by_brute_force(evidence: Evidence, normalize: bool) -> None:
    banks, one = evidence.banks, evidence.sets["shapes-novel"]
    assert one.features is not None

    def ready(f: np.ndarray) -> np.ndarray:
        f = f.astype(np.float64)
        return f / np.linalg.norm(f, axis=1, keepdims=True) if normalize else f

    seen: list[float] = []
    found = ood_pairs(evidence, "shapes-novel", normalize, seen.append)
    assert seen[-1] == 1.0 and (np.diff(found.distances) >= 0).all()
    d = np.linalg.norm(ready(one.features)[:, None] - ready(banks.id_features)[None], axis=2)
    nearest = dict(zip(one.ids.tolist(), banks.id_ids[d.argmin(1)].tolist(), strict=True))
    assert dict(zip(found.ids.tolist(), found.others.tolist(), strict=True)) == nearest
    assert np.allclose(found.distances, np.sort(d.min(1)), rtol=1e-5)
    assert not found.is_source.any()

    sources = source_pairs(evidence, normalize)
    assert dict(zip(sources.ids.tolist(), sources.others.tolist(), strict=True)) == dict(
        zip(evidence.outliers.ids.tolist(), evidence.outliers.source_ids.tolist(), strict=True)
    )
    a, b = ready(banks.outlier_features), ready(banks.id_features)
    assert np.allclose(sources.distances, np.sort(np.linalg.norm(a - b, axis=1)), rtol=1e-5)
    assert sources.is_source.all()

    outliers = outlier_pairs(evidence, normalize)
    d = np.linalg.norm(a[:, None] - b[None], axis=2)
    assert np.allclose(outliers.distances, np.sort(d.min(1)), rtol=1e-5)
    own = evidence.outliers.source_ids == banks.id_ids[d.argmin(1)]
    assert int(outliers.is_source.sum()) == int(own.sum())


def test_an_image_of_the_bank_is_not_its_own_neighbour(tmp_path: Path, evidence: Evidence) -> None:
    again = Evidence(evidence.bundle)
    banks = evidence.banks
    again.sets = {  # type: ignore[misc]
        "test": replace(
            evidence.id_set, ids=banks.id_ids, features=banks.id_features, total=np.zeros(len(banks.id_ids))
        )
    }
    found = ood_pairs(again, "test", True)
    assert len(found) == len(banks.id_ids) and (found.ids != found.others).all()
    assert found.distances.min() > 0


def test_a_bundle_without_banks_says_so(tmp_path: Path) -> None:
    bare = Evidence(Bundle.load(save_tiny_bundle(tmp_path / "b"), "cpu"))
    for pairs in (lambda: source_pairs(bare, True), lambda: outlier_pairs(bare, True)):
        with pytest.raises(MissingPart):
            pairs()
