from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdviz.bundle import Bundle, BundleError
from sdviz.bundle.manifest import Threshold
from sdviz.bundle.threshold import keep_threshold, make_threshold, reference_of

SCORES = np.arange(100.0)


def with_threshold(bundle: Bundle, threshold: Threshold | None) -> Bundle:
    bundle.manifest = bundle.manifest.model_copy(update={"threshold": threshold})
    return bundle


def test_a_bundle_without_one_has_95_percent(tiny_bundle: Callable[..., Bundle]) -> None:
    found = reference_of(tiny_bundle(), SCORES)
    assert (found.threshold, found.id_recall) == (94, 95)


def test_a_number_holds_for_the_bundles_own_score_alone(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = with_threshold(tiny_bundle(), make_threshold(12.5, None))
    assert reference_of(bundle, SCORES).threshold == 12.5
    assert reference_of(bundle, SCORES, own_score=False).threshold == 94
    by_recall = with_threshold(tiny_bundle(), make_threshold(None, 80))
    assert reference_of(by_recall, SCORES).threshold == 79
    assert reference_of(by_recall, 2 * SCORES, own_score=False).threshold == 158


def test_it_is_kept_without_changing_what_the_bundle_is(
    tiny_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    saved = tiny_bundle().save(tmp_path / "b")
    keep_threshold(with_threshold(saved, make_threshold(None, 0.9)))
    again = Bundle.load(tmp_path / "b", "cpu")
    assert again.manifest.threshold == Threshold(value=None, id_recall=90)
    assert again.hash == saved.hash
    # a copy keeps it too
    assert again.save(tmp_path / "copy").manifest.threshold == again.manifest.threshold


def test_none_or_one(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    assert make_threshold(None, None) is None
    with pytest.raises(ValueError, match="give one"):
        make_threshold(1.0, 95)
    tiny_bundle().save(tmp_path / "b")
    file = tmp_path / "b" / "bundle.json"
    for wrong, why in (
        ({"value": 1.0, "id_recall": 95.0}, "a value or an id_recall"),
        ({"value": -1.0, "id_recall": None}, "greater than or equal to 0"),
        ({"value": None, "id_recall": 101}, "less than or equal to 100"),
        ({"value": float("inf"), "id_recall": None}, "finite"),
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"threshold": wrong}))
        with pytest.raises(BundleError, match=f"threshold.*{why}"):
            Bundle.load(tmp_path / "b", "cpu")
