from __future__ import annotations

from pathlib import Path

import pytest

from sdviz.analysis import Evidence, MissingPart
from sdviz.bundle import Bundle
from sdviz.evaluation import ood_reference
from tests.tiny_bundle import save_tiny_bundle


def test_sets_come_id_first_and_fit_their_features(evidence: Evidence) -> None:
    assert next(iter(evidence.sets)) == "test" and evidence.id_set.role == "id"
    for one in evidence.sets.values():
        assert one.features is not None and one.features.shape == (len(one), 128)
        assert one.heads["g_in"].shape == (len(one), 10)
    assert list(evidence.ood_sets) == ["shapes-novel", "shapes-empty", "digits", "shapes-novel-val"]


def test_threshold_is_the_one_of_the_stored_id_scores(evidence: Evidence) -> None:
    assert evidence.reference.threshold == ood_reference(evidence.id_set.total).threshold
    assert evidence.report.thresholds["both"] == evidence.reference.threshold


@pytest.mark.parametrize("part", ["banks", "sets", "outliers", "report", "snapshots", "reference"])
def test_a_missing_part_is_one_line(tmp_path: Path, part: str) -> None:
    evidence = Evidence(Bundle.load(save_tiny_bundle(tmp_path / "b"), "cpu"))
    with pytest.raises(MissingPart, match="this bundle has no ") as error:
        getattr(evidence, part)
    assert "\n" not in str(error.value)


def test_recipe_of_an_outlier(evidence: Evidence) -> None:
    recipe = evidence.outliers.recipe(0)
    assert (recipe.start_timestep, recipe.guidance_scale, recipe.num_inference_steps) == (100, 4.0, 5)
    assert evidence.outliers.sigma(0) == pytest.approx(0.339, abs=5e-4)
