from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdviz.analysis import Evidence, MissingPart, PictureLibrary, pictures
from sdviz.analysis.provenance import footer, provenance
from sdviz.analysis.rescoring import index_over_banks, rescorer, stored_scores
from sdviz.analysis.tables import OutlierTable
from sdviz.bundle import Bundle
from sdviz.data.decode import through_jpeg
from sdviz.detection.score import SDScore
from sdviz.evaluation import ood_reference
from tests.cut_bundle import save_cut_bundle
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return Evidence(Bundle.load(save_cut_bundle(tmp_path_factory.mktemp("cut") / "b"), "cpu"))


def test_sets_come_id_first_and_fit_their_features(evidence: Evidence) -> None:
    assert next(iter(evidence.sets)) == "test" and evidence.id_set.role == "id"
    for one in evidence.sets.values():
        assert one.features is not None and one.features.shape == (len(one), 128)
        assert one.heads["g_in"].shape == (len(one), 10)
    assert list(evidence.ood_sets) == ["shapes-novel", "shapes-empty", "digits", "shapes-novel-val"]


def test_threshold_is_the_one_of_the_stored_id_scores(evidence: Evidence) -> None:
    assert evidence.reference.threshold == ood_reference(evidence.id_set.total).threshold
    assert evidence.report.thresholds["both"] == evidence.reference.threshold


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


@pytest.mark.parametrize("part", ["banks", "sets", "outliers", "report", "snapshots", "reference"])
def test_a_missing_part_is_one_line(tmp_path: Path, part: str) -> None:
    evidence = Evidence(Bundle.load(save_tiny_bundle(tmp_path / "b"), "cpu"))
    with pytest.raises(MissingPart, match="this bundle has no ") as error:
        getattr(evidence, part)
    assert "\n" not in str(error.value)


def test_pictures_of_images_and_outliers(evidence: Evidence) -> None:
    library = PictureLibrary(evidence)
    ids = [
        evidence.id_set.ids[3],
        evidence.outliers.ids[0],
        "nothing/here/1",
        evidence.ood_sets["digits"].ids[0],
    ]
    shown = library.show(ids)
    assert shown.found.tolist() == [True, True, False, True]
    assert len(shown.missing) == 1 and "nothing" in shown.missing[0]
    assert shown.class_names[1] == "" and shown.class_names[0] != ""
    assert library.outlier_row(str(ids[1])) == 0 and library.outlier_row(str(ids[0])) is None
    assert np.array_equal(library.show(ids).images, shown.images)


def test_the_last_pictures_used_stay_up_to_a_number_of_bytes(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "KEPT_BYTES", 3 * 32 * 32 * 3)
    library, ids = PictureLibrary(evidence), evidence.outliers.ids[:5].tolist()
    assert library.show(ids).found.all(), "more than are kept"
    library.show([ids[2]])  # used once more
    library.show([ids[0]])
    assert set(library._kept) == {ids[4], ids[2], ids[0]}


def test_an_outlier_without_a_picture_is_made_again_as_it_was(evidence: Evidence) -> None:
    with_png = PictureLibrary(evidence).show(evidence.outliers.ids[:3]).images
    table = evidence.outliers.table
    bare = Evidence(evidence.bundle)
    bare.__dict__["outliers"] = type(evidence.outliers)(
        evidence.outliers.ids,
        evidence.outliers.source_ids,
        evidence.outliers.labels,
        evidence.outliers.target_labels,
        table.drop_columns(["png"]),
    )
    again = PictureLibrary(bare).show(evidence.outliers.ids[:3]).images
    # bfloat16 rounds otherwise on another machine, and guidance of w = 4 makes nine times as much of it
    assert np.abs(again.astype(int) - with_png.astype(int)).mean() < 4.0
    sources = PictureLibrary(evidence).show(evidence.outliers.source_ids[:3]).images
    assert np.abs(again.astype(int) - sources.astype(int)).mean() > 6.0


def bare(evidence: Evidence, sources: np.ndarray, config: dict[str, Any] | None = None) -> Evidence:
    """The same outliers without their pictures, made of other sources."""
    whole, bundle = evidence.outliers, evidence.bundle
    if config is not None:
        bundle = copy.copy(bundle)
        bundle.manifest = bundle.manifest.model_copy(update={"config": config})
    new = Evidence(bundle)
    table = whole.table.drop_columns(["png"])
    new.__dict__["outliers"] = OutlierTable(whole.ids, sources, whole.labels, whole.target_labels, table)
    return new


def test_an_outlier_made_again_goes_through_the_jpeg_of_its_recipe(evidence: Evidence) -> None:
    table = evidence.outliers
    ids = table.ids[:3]
    plain = PictureLibrary(bare(evidence, table.source_ids)).show(ids).images
    settings = {"quality": 40, "subsampling": "4:2:0"}
    coded = bare(evidence, table.source_ids, {"outliers": {"jpeg": settings}})
    again = PictureLibrary(coded).show(ids).images
    assert np.array_equal(again, through_jpeg(plain, 40, "4:2:0")) and not np.array_equal(again, plain)


def test_what_is_not_here_says_how_to_get_it_once_a_split(evidence: Evidence, data_root: Path) -> None:
    table = evidence.outliers
    sources = np.array([f"cifar10/train/{i:05d}" for i in range(len(table.ids))])
    library = PictureLibrary(bare(evidence, sources))
    shown = library.show([*table.ids[:5], "cifar10/test/00001", "photos/all/3", "photos/all/4"])
    assert not shown.found.any() and np.unique(shown.images).tolist() == [127]
    assert shown.missing == (
        "cifar10 (test) is not on this machine",
        "photos (all) is not on this machine",
        "cifar10 (train) is not on this machine",
    )
    fetch = "`python -m sdviz download cifar10` fetches it"
    put = f"put `photos.parquet` in `{data_root}`, or in another `SDVIZ_DATA`"
    # the sources of outliers come last
    assert shown.ways == (
        ("cifar10", "test", fetch, True),
        ("photos", "all", put, True),
        ("cifar10", "train", fetch, True),
    )
    assert tuple(way.reason for way in shown.ways) == shown.missing
    # what no set is called, and what has no file under the data root, has no way
    for one in ("*a*/[b](c)/1", "shapes/train/99999999", "nothing", "folder/x/y.png@0"):
        assert library.show([one]).ways == ()


def test_recipe_of_an_outlier(evidence: Evidence) -> None:
    recipe = evidence.outliers.recipe(0)
    assert (recipe.start_timestep, recipe.guidance_scale, recipe.num_inference_steps) == (100, 4.0, 5)
    assert evidence.outliers.sigma(0) == pytest.approx(0.339, abs=5e-4)


def test_provenance_names_bundle_configuration_and_settings(evidence: Evidence) -> None:
    lines = provenance(evidence.bundle, k=10, alpha=None)
    assert lines["bundle hash"] == evidence.bundle.hash and lines["k"] == "10" and "alpha" not in lines
    assert len(lines["configuration"]) == 64
    assert evidence.bundle.hash[:12] in footer(lines) and evidence.bundle.hash not in footer(lines)


def test_configuration_hash_is_that_of_the_report() -> None:
    evidence = Evidence(Bundle.load(Path(__file__).parents[3] / "checkpoints" / "shapes", "cpu"))
    assert provenance(evidence.bundle)["configuration"] == evidence.report.config_sha256
