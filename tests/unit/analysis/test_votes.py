from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.tables import OUTLIERS, TRAIN
from sdviz.analysis.votes import (
    BORDER,
    MAP_OF_BANK,
    MAP_OF_SET,
    RANDOM,
    WORST,
    Sample,
    feature_map,
    find_sample,
    group_ids,
    matching_ids,
    ordered,
    probabilities,
    sample_at,
    sample_to_begin_with,
    score_parts,
    search_both,
    shares_below,
)
from sdviz.bundle import Bundle
from sdviz.detection.score import SDScore
from tests.cut_bundle import save_cut_bundle
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A bundle without banks and scores."""
    return Evidence(Bundle.load(save_tiny_bundle(tmp_path_factory.mktemp("tiny") / "b"), "cpu"))


def test_groups_are_the_sets_and_then_the_banks(evidence: Evidence, bare: Evidence) -> None:
    groups = group_ids(evidence)
    assert list(groups) == [*evidence.sets, TRAIN, OUTLIERS]
    assert np.array_equal(groups[OUTLIERS], evidence.banks.outlier_ids)
    assert group_ids(bare) == {}


def test_an_image_is_found_with_what_the_bundle_knows_of_it(evidence: Evidence, bare: Evidence) -> None:
    near = evidence.sets["shapes-novel"]
    found = find_sample(evidence, str(near.ids[7]))
    assert found is not None and near.features is not None and found.measured is not None
    assert (found.group, found.role, found.row) == ("shapes-novel", "near", 7)
    assert np.array_equal(found.features, near.features[7])
    assert np.array_equal(found.heads["g_in"], near.heads["g_in"][7])
    assert found.measured.total.tolist() == [near.total[7]]

    banks = evidence.banks
    for names, features, group, role in (
        (banks.id_ids, banks.id_features, TRAIN, "train"),
        (banks.outlier_ids, banks.outlier_features, OUTLIERS, "outlier"),
    ):
        found = find_sample(evidence, str(names[5]))
        assert found is not None and found.measured is None and found.heads == {}
        assert (found.id, found.group, found.role, found.row) == (names[5], group, role, 5)
        assert np.array_equal(found.features, features[5])
    assert find_sample(evidence, "nowhere/1") is None and find_sample(bare, "shapes/train/00000") is None


def test_an_image_of_two_groups_is_found_in_the_preferred_one(evidence: Evidence) -> None:
    one = str(evidence.banks.id_ids[3])
    twice = Evidence(evidence.bundle)
    ids = evidence.id_set.ids.tolist()
    ids[2] = one
    twice.sets = evidence.sets | {"test": replace(evidence.id_set, ids=np.array(ids))}  # type: ignore[misc]
    first, preferred = find_sample(twice, one), find_sample(twice, one, TRAIN)
    assert first is not None and (first.group, first.row) == ("test", 2)
    assert preferred is not None and (preferred.group, preferred.row) == (TRAIN, 3)


def test_ids_are_searched_whole_and_then_by_a_part(evidence: Evidence) -> None:
    one = str(evidence.sets["digits"].ids[0])
    assert matching_ids(evidence, one) == ([one], 1)
    found, n = matching_ids(evidence, "digits/")
    assert n == len(evidence.sets["digits"]) and found == evidence.sets["digits"].ids[:5].tolist()
    assert matching_ids(evidence, "nowhere") == ([], 0)


def test_orders_by_hand() -> None:
    total = np.array([0.2, 0.9, 0.4, 0.6, 0.4])
    assert ordered(total, 0.5, True, WORST).tolist() == [1, 3, 2, 4, 0]
    assert ordered(total, 0.5, False, WORST).tolist() == [0, 2, 4, 3, 1]
    assert ordered(np.array([0.0, 4.0, 1.5, 3.0]), 2.0, True, BORDER).tolist() == [2, 3, 0, 1]
    mixed = ordered(total, 0.5, True, RANDOM)
    assert sorted(mixed) == [0, 1, 2, 3, 4] and mixed.tolist() == ordered(-total, 0.1, False, RANDOM).tolist()


def test_the_first_image_is_the_missed_one_closest_to_the_threshold(evidence: Evidence) -> None:
    n = len(evidence.sets["shapes-novel"])
    scores = np.linspace(3.0, 5.0, n)
    scores[[4, 9, 11]] = 0.5, 1.9, 2.05
    found, text = sample_to_begin_with(evidence, {"shapes-novel": scores}, 2.0)
    assert found is not None and (found.group, found.row) == (
        "shapes-novel",
        9,
    )  # 2.05 is closer, but not missed
    assert text == "the missed OOD image of `shapes-novel` closest to the threshold"
    found, text = sample_to_begin_with(evidence, {"shapes-novel": scores}, 0.4)
    assert found is not None and found.row == 4
    assert text == "the OOD image of `shapes-novel` closest to the threshold"

    found, text = sample_to_begin_with(evidence, {}, None)
    own, near = evidence.reference.threshold, evidence.sets["shapes-novel"].total
    below = near[near <= own]
    expected = below.max() if len(below) else near.min()
    assert found is not None and near[found.row] == expected and text.endswith("the bundle's own threshold")


def test_the_first_image_without_ood_sets_scores_or_banks(evidence: Evidence, bare: Evidence) -> None:
    only_id, unscored = Evidence(evidence.bundle), Evidence(evidence.bundle)
    only_id.sets = {"test": evidence.id_set}  # type: ignore[misc]
    found, text = sample_to_begin_with(only_id, {"test": np.arange(len(evidence.id_set))}, 6.2)
    assert found is not None and (found.group, found.row) == ("test", 6)
    assert text == "the ID image of `test` closest to the threshold"
    unscored.bundle = Bundle.load(evidence.bundle.path, "cpu")
    unscored.bundle.parts = {k: v for k, v in evidence.bundle.parts.items() if k != "scores.parquet"}
    found, text = sample_to_begin_with(unscored, {}, None)
    assert found is not None and (found.group, found.row, text) == (TRAIN, 0, "the first training image")
    assert sample_to_begin_with(bare, {}, None) == (None, "")


def test_shares_and_probabilities_by_hand() -> None:
    totals = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "none": np.array([])}
    assert shares_below(totals, 3.0) == {"a": 50.0}  # 3 itself is not below
    assert np.allclose(probabilities(np.log(np.array([1.0, 2.0, 5.0]))), [1 / 8, 2 / 8, 5 / 8])
    assert probabilities(np.array([1e4, 0.0], np.float32)).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("normalize", [True, False])
def test_the_map_is_the_plane_of_the_largest_variance(evidence: Evidence, normalize: bool) -> None:
    found = feature_map(evidence, normalize)
    assert list(found.places) == [TRAIN, OUTLIERS, *evidence.sets] == list(found.ids)
    assert len(found.ids[TRAIN]) == min(MAP_OF_BANK, len(evidence.banks.id_ids))
    assert len(found.ids["digits"]) == min(MAP_OF_SET, len(evidence.sets["digits"]))
    # numpy's singular vectors, each with either sign
    features = []
    for group, ids in found.ids.items():
        samples = [find_sample(evidence, one, group) for one in ids.tolist()]
        features.append(np.stack([one.features for one in samples if one is not None]).astype(np.float64))
    stack = np.concatenate(features)
    if normalize:
        stack /= np.linalg.norm(stack, axis=1, keepdims=True)
    centred = stack - stack.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    places = np.concatenate(list(found.places.values()))
    assert np.allclose(np.abs(places), np.abs(centred @ axes[:2].T), atol=1e-3 * np.abs(places).max())
    assert np.allclose(found.explained, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-4)
    again = found.place(evidence.banks.id_features)
    rows = [evidence.banks.id_ids.tolist().index(one) for one in found.ids[TRAIN].tolist()]
    assert np.allclose(again[rows], found.places[TRAIN], atol=1e-5)


def test_too_few_features_have_no_map(tmp_path: Path, bare: Evidence) -> None:
    with pytest.raises(MissingPart):
        feature_map(bare, True)
    few = Evidence(Bundle.load(save_cut_bundle(tmp_path / "b", n_id=30, n_per_set=4), "cpu"))
    few.banks = replace(  # type: ignore[misc]
        few.banks,
        id_ids=few.banks.id_ids[:1],
        id_features=few.banks.id_features[:1],
        id_labels=few.banks.id_labels[:1],
        outlier_ids=few.banks.outlier_ids[:0],
    )
    few.sets = {}  # type: ignore[misc]
    with pytest.raises(MissingPart, match="too few features for a map"):
        feature_map(few, True)


def test_the_terms_of_a_score_by_hand(evidence: Evidence) -> None:
    # ID at 0 and 3, outliers at 1 and 9, an image at 1.5: the ID images are 1.5 and 1.5 away, the outlier 0.5
    search = SDScore(2, 0.0, False).fit([[0.0], [3.0]], [[1.0], [9.0]])  # type: ignore[arg-type]
    near = search.search(np.array([[1.5]]), None)
    new = Sample("x", "", "", -1)
    parts = score_parts(new, near, 2, 0.25, True)
    assert parts is not None
    assert (parts.distance, parts.votes, parts.alpha, parts.total) == (4.5, 1, 0.25, 4.75)
    parts = score_parts(new, near, 1, 2.0, False)
    assert parts is not None and (parts.distance, parts.votes, parts.total) == (2.25, 1, 4.25)
    assert score_parts(new, None, 2, 0.25, True) is None
    with pytest.raises(ValueError, match="k = 3 is outside 1..2"):
        score_parts(new, near, 3, 0.25, False)

    # an image that the bundle has measured keeps those terms, under any alpha
    known = sample_at(evidence, "digits", 3)
    digits = evidence.sets["digits"]
    parts = score_parts(known, near, 2, 0.5, True)
    assert parts is not None and (parts.distance, parts.votes) == (digits.distance[3], digits.votes[3])
    assert parts.total == digits.distance[3] + 0.5 * digits.votes[3]
    parts = score_parts(known, near, 2, 0.5, False)
    assert parts is not None and parts.distance == 4.5
    assert score_parts(known, None, 2, 0.5, False) is None


def test_pictures_made_from_an_image_have_neither_it_nor_its_outlier_as_neighbours() -> None:
    known, outliers = np.array([[0.0], [3.0], [4.0]]), np.array([[1.0], [9.0], [2.0]])
    search = SDScore(2, 0.0, False).fit(
        known, outliers, id_ids=["a", "b", "c"], outlier_ids=["a~0", "b~0", "c~0"]
    )
    queries = np.array([[0.5], [3.5]])
    free = search_both(search, queries, "", "", 2)
    assert free.id_indices.tolist() == [[0, 1], [1, 2]] and free.outlier_indices.tolist() == [[0, 2], [2, 0]]
    own = search_both(search, queries, "a", "a~0", 2)
    assert own.id_indices.tolist() == [[1, 2], [1, 2]] and own.outlier_indices.tolist() == [[2, 1], [2, 1]]
    assert own.id_distances.tolist() == [[2.5, 3.5], [0.5, 0.5]]
    assert own.outlier_distances.tolist() == [[1.5, 8.5], [1.5, 5.5]]
    assert search_both(search, queries, "a", "", 2).outlier_indices.tolist() == [[0, 2], [2, 0]]


def test_where_generated_images_stand_in_one_of_them_comes_first(
    carrying: tuple[Evidence, pd.DataFrame],
) -> None:
    evidence, table = carrying
    totals = {name: one.total for name, one in evidence.shown_sets.items()}
    found, what = sample_to_begin_with(evidence, totals, None)
    own = table[table["set"] == "generated"]
    nearest = (own["total"] - evidence.reference.threshold).abs().idxmin()
    assert found is not None and found.id == own["id"][nearest] and found.role == "generated"
    assert what == "the image of `generated` closest to the bundle's own threshold"
