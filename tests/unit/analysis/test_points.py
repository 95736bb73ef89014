from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.points import available_sets, final_points, moves, shared_out, snapshot_points
from sdviz.analysis.tables import OUTLIERS, TRAIN
from sdviz.bundle import Bundle
from tests.tiny_bundle import save_tiny_bundle


def test_points_are_shared_evenly_and_small_sets_give_what_they_have() -> None:
    assert shared_out(9, [100, 100, 100]) == [3, 3, 3]
    assert shared_out(10, [2, 100, 100]) == [2, 4, 4]
    assert shared_out(2, [5, 5, 5]) == [1, 1, 0]
    assert shared_out(100, [3, 0, 4]) == [3, 0, 4]
    assert shared_out(5, []) == []


def test_features_move_if_any_epoch_differs() -> None:
    still = np.zeros((3, 4, 2))
    assert not moves(still)
    still[2, 1, 0] = 1e-6
    assert moves(still)


def test_points_of_the_trained_detector_are_rows_of_its_tables(evidence: Evidence) -> None:
    sets = available_sets(evidence, False)
    assert sets == [TRAIN, *evidence.sets, OUTLIERS]
    found = final_points(evidence, sets, 70, False)
    assert found.frames == ("after training",) and found.features.shape == (1, len(found), 128)
    assert {name: int((found.sets == name).sum()) for name in sets} == dict.fromkeys(sets, 10)
    banks, table = evidence.banks, evidence.outliers
    for i, (one, name) in enumerate(zip(found.ids.tolist(), found.sets.tolist(), strict=True)):
        if name == TRAIN:
            row = banks.id_ids.tolist().index(one)
            features, cluster, start, target, scored = banks.id_features[row], banks.id_labels[row], -1, -1, -1
        elif name == OUTLIERS:
            row = banks.outlier_ids.tolist().index(one)
            at = table.ids.tolist().index(one)
            features, cluster, scored = banks.outlier_features[row], table.labels[at], -1
            start, target = table.recipe(at).start_timestep, table.target_labels[at]
        else:
            of = evidence.sets[name]
            scored = of.ids.tolist().index(one)
            assert of.features is not None
            features, cluster = of.features[scored], of.heads["g_in"][scored].argmax()
            start = target = -1
        assert np.array_equal(found.features[0, i], features)
        assert (found.clusters[i], found.start_timesteps[i], found.target_labels[i]) == (cluster, start, target)
        assert found.scored_rows[i] == scored


def test_more_points_add_to_the_same_ones(evidence: Evidence) -> None:
    few, many = (final_points(evidence, [TRAIN, "digits"], n, True) for n in (20, 50))
    assert len(few) == 20 and len(many) == 50 and set(few.ids.tolist()) < set(many.ids.tolist())
    assert np.allclose(np.linalg.norm(many.features, axis=2), 1)
    assert len(final_points(evidence, [], 50, True)) == 0


def test_values_of_whole_sets_are_spread_over_their_points(evidence: Evidence) -> None:
    found = final_points(evidence, [TRAIN, "digits"], 20, True)
    digits = evidence.sets["digits"]
    spread = found.spread({"digits": digits.total, "shapes-novel": np.zeros(99)})
    total_of = dict(zip(digits.ids.tolist(), digits.total.tolist(), strict=True))
    assert np.isnan(spread[found.sets == TRAIN]).all()
    assert [total_of[one] for one in found.ids[found.sets == "digits"].tolist()] == spread[
        found.sets == "digits"
    ].tolist()


def test_points_through_training_are_the_kept_features_of_at_most_six_epochs(evidence: Evidence) -> None:
    sets = available_sets(evidence, True)
    assert sets[0] == TRAIN and sets[-1] == OUTLIERS
    stack, _, ids = evidence.snapshots
    found = snapshot_points(evidence, sets, 30, False)
    assert len(found) == 30 and len(found.features) == len(found.frames) <= 6
    assert found.frames[0] == "before training" and found.frames[-1] == f"epoch {len(stack) - 1} (last)"
    rows = [ids.tolist().index(one) for one in found.ids.tolist()]
    assert np.array_equal(found.features[0], stack[0, rows]) and np.array_equal(
        found.features[-1], stack[-1, rows]
    )
    assert found.same_in == ()


def test_features_that_never_change_are_one_frame(evidence: Evidence) -> None:
    still = Evidence(evidence.bundle)
    stack, roles, ids = evidence.snapshots
    still.snapshots = np.repeat(stack[:1], len(stack), 0), roles, ids  # type: ignore[misc]
    found = snapshot_points(still, available_sets(still, True), 30, False)
    assert found.frames == ("every epoch",) and len(found.features) == 1
    assert found.same_in == snapshot_points(evidence, available_sets(evidence, True), 30, False).frames


def test_a_bundle_without_features_has_no_points(tmp_path: Path) -> None:
    bare = Evidence(Bundle.load(save_tiny_bundle(tmp_path / "b"), "cpu"))
    for through in (True, False):
        with pytest.raises(MissingPart):
            available_sets(bare, through)


def test_generated_points_have_the_labels_of_their_table(carrying: tuple[Evidence, pd.DataFrame]) -> None:
    evidence, table = carrying
    points = final_points(evidence, ["generated", "generated-outliers"], 40, True)
    assert points.ids.tolist() == table["id"].tolist()
    assert points.clusters.tolist() == table["cluster"].tolist()
    assert points.target_labels.tolist() == table["target_label"].tolist()
    assert points.scored_rows.tolist() == [*range(20), *range(20)]
