from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdviz.analysis import Evidence
from sdviz.analysis.paper_tables import OURS_ROW, TRUTH_ROW, other_sets, paper_tables
from sdviz.analysis.records import (
    BundleRecord,
    differing_keys,
    mean_auroc,
    once_each,
    read_columns,
    read_record,
    recipe_map,
)
from sdviz.bundle import Bundle, BundleError
from sdviz.bundle.manifest import MANIFEST, sha256
from tests.cut_bundle import save_cut_bundle
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cut_bundle(tmp_path_factory.mktemp("cut") / "b")


def altered(
    whole: Path,
    to: Path,
    change: dict[str, Any] | None = None,
    dataset: str | None = None,
    auroc: dict[str, float] | None = None,
    rename: dict[str, str] | None = None,
) -> BundleRecord:
    """A copy of a bundle's papers with another configuration, other names and figures."""
    to.mkdir()
    for name in (MANIFEST, "report.json", "scores.parquet"):
        shutil.copy(whole / name, to / name)
    report = json.loads((to / "report.json").read_text())
    for old, new in (rename or {}).items():
        report["results"][new] = report["results"].pop(old)
    for name, value in (auroc or {}).items():
        report["results"][name]["modes"]["both"]["auroc"] = value
        report["means"][report["results"][name]["role"]]["both"]["auroc"] = value
    (to / "report.json").write_text(json.dumps(report))
    manifest = json.loads((to / MANIFEST).read_text())
    for key, value in (change or {}).items():
        node = manifest["config"]
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        node[last] = value
    manifest["dataset"] = dataset or manifest["dataset"]
    manifest["files"]["report.json"] = sha256(to / "report.json")
    (to / MANIFEST).write_text(json.dumps(manifest))
    return read_record(to, to.name)


def test_a_record_is_what_the_bundle_says(whole: Path) -> None:
    record, bundle = read_record(whole, "one"), Bundle.load(whole, "cpu")
    assert record.hash == bundle.hash and record.manifest == bundle.manifest
    evidence = Evidence(bundle)
    assert record.report == evidence.report
    columns = read_columns(record)
    assert list(columns) == list(evidence.sets)
    for name, one in evidence.sets.items():
        assert (columns[name]["both"] == one.total).all()
        assert (columns[name]["votes"] == one.votes).all()
    assert record.recipe == (100, 4.0)  # w is the default's


def test_a_changed_report_is_refused_by_name(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "b"))
    (copy / "scores.parquet").write_bytes(b"x")
    with pytest.raises(BundleError, match="scores.parquet was changed"):
        read_columns(read_record(copy, "b"))
    (copy / "report.json").write_text("{}")
    with pytest.raises(BundleError, match="report.json was changed"):
        read_record(copy, "b")
    with pytest.raises(BundleError, match="not a bundle"):
        read_record(tmp_path / "none", "none")


def test_a_bundle_without_scores_has_a_record(tmp_path: Path) -> None:
    record = read_record(save_tiny_bundle(tmp_path / "tiny"), "tiny")
    assert record.report is None and read_columns(record) == {} and mean_auroc(record, "near") is None


def test_seeds_and_recipe_make_no_other_family(whole: Path, tmp_path: Path) -> None:
    one = read_record(whole, "one")
    same = altered(whole, tmp_path / "same", {"outliers.start_timestep": 200, "detector.seed": 3, "seed": 1})
    other = altered(whole, tmp_path / "other", {"detector.epochs": 7})
    assert one.family == same.family != other.family
    assert differing_keys([one, other]) == {"detector.epochs": [5, 7]}
    assert differing_keys([one, one]) == {}


def test_the_same_run_made_again_is_no_other_seed(whole: Path, tmp_path: Path) -> None:
    one = read_record(whole, "one")
    again = altered(whole, tmp_path / "again", {"profile": "again"}, auroc={"shapes-novel": 0.5})
    seed = altered(whole, tmp_path / "seed", {"detector.seed": 3})
    s = altered(whole, tmp_path / "s", {"outliers.start_timestep": 200})
    assert one.hash != again.hash and once_each([one, again, seed, s]) == [again, seed, s]
    # that with fewer sets goes, whichever came first
    fewer = BundleRecord(
        "fewer",
        whole,
        one.manifest,
        "f",
        one.report.model_copy(update={"results": {}}),  # type: ignore[union-attr]
    )
    assert once_each([one, fewer]) == once_each([fewer, one]) == [one]


def test_the_map_over_s_and_w_holds_means_over_seeds(whole: Path, tmp_path: Path) -> None:
    def make(name: str, s: int, w: float, seed: int, value: float) -> BundleRecord:
        change = {"outliers.start_timestep": s, "outliers.guidance_scale": w, "detector.seed": seed}
        return altered(whole, tmp_path / name, change, auroc={"shapes-novel": value})

    records = [
        make("a", 100, 2.0, 0, 0.90),
        make("b", 100, 2.0, 1, 0.94),
        make("c", 200, 2.0, 0, 0.80),
        make("d", 200, 4.0, 0, 0.70),
        read_record(save_tiny_bundle(tmp_path / "tiny"), "tiny"),
    ]
    found = recipe_map(records, "near")
    assert (found.s, found.w) == ([100, 200], [2.0, 4.0])
    assert np.allclose(found.mean, [[0.92, 0.80], [np.nan, 0.70]], equal_nan=True)
    assert found.n.tolist() == [[2, 1], [0, 1]]
    assert found.sd[0, 0] == pytest.approx(np.std([0.90, 0.94], ddof=1)) and np.isnan(found.sd[0, 1])
    assert recipe_map([], "near").mean.size == 0


# --------------------------------------------------------------------------------------------------
# The paper's tables
# --------------------------------------------------------------------------------------------------

PAPER = {"shapes-novel": "cifar100", "digits": "svhn", "shapes-empty": "places_lsun9"}


def test_the_papers_figures_stand_as_in_the_paper() -> None:
    first, second, third, fourth = paper_tables()
    assert first.paper[OURS_ROW, "CIFAR-100"] == 98.0 and first.paper[TRUTH_ROW, "CIFAR-100"] == 98.2
    assert ("SSD", "SVHN") not in first.paper
    assert second.paper["w = 3", "S = 150"] == 98.0 and len(second.paper) == 15
    assert third.paper["AUROC (%), distance only", "S = 50"] == 97.2
    assert third.paper["FID of the outliers", "S = 200"] == 7.59
    assert fourth.paper["Fake-it", "SD outliers of CIFAR-10 test images"] == 81.4
    assert all(not table.ours for table in (first, second, third, fourth))


def test_other_data_is_never_next_to_the_papers(whole: Path, tmp_path: Path) -> None:
    shapes = altered(whole, tmp_path / "s", {"outliers.guidance_scale": 2.0}, rename=PAPER)
    assert all(not table.ours for table in paper_tables([shapes]))
    assert other_sets([shapes]) == {}
    # cifar10, but not one set of the paper's
    stand_ins = altered(whole, tmp_path / "c", {"outliers.guidance_scale": 2.0}, "cifar10")
    assert all(not table.ours for table in paper_tables([stand_ins]))
    assert set(other_sets([stand_ins])) == {
        "shapes-novel",
        "shapes-empty",
        "digits",
        "shapes-novel-val (validation)",
    }


def test_ours_stands_in_the_cells_that_were_measured_and_in_no_other(whole: Path, tmp_path: Path) -> None:
    two = [
        altered(
            whole,
            tmp_path / f"c{seed}",
            {"outliers.guidance_scale": 2.0, "outliers.start_timestep": 100, "detector.seed": seed},
            "cifar10",
            {"cifar100": value},
            PAPER,
        )
        for seed, value in ((0, 0.90), (1, 0.92))
    ]
    first, second, third, fourth = paper_tables(two)
    own = "network of ours: small"
    assert set(first.ours) == {(f"SD outliers, {own}", column) for column in ("CIFAR-100", "SVHN")}
    ours = first.ours[f"SD outliers, {own}", "CIFAR-100"]
    assert ours.mean == pytest.approx(91.0) and ours.sd == pytest.approx(np.std([90, 92], ddof=1))
    assert (ours.n_bundles, ours.n_images, ours.whole, ours.interval) == (2, 40, 10_000, None)
    assert set(second.ours) == {(f"w = 2, {own}", "S = 100")}
    by = ("distance only", "distance + vote")
    assert set(third.ours) == {(f"AUROC (%), {row}, {own}", "S = 100") for row in by}
    assert not fourth.ours
    assert "places_lsun9" in other_sets(two) and "cifar100" not in other_sets(two)
    # runs of another S or w are no other seeds
    change = {"outliers.guidance_scale": 2.0, "outliers.start_timestep": 200}
    third_run = altered(whole, tmp_path / "c3", change, "cifar10", {"places_lsun9": 0.5}, PAPER)
    by_recipe = other_sets([*two, third_run])["places_lsun9"]
    assert list(by_recipe) == [(100, 2.0), (200, 2.0)]
    assert by_recipe[100, 2.0].n_bundles == 2 and by_recipe[100, 2.0].sd is not None
    assert by_recipe[200, 2.0].n_bundles == 1 and by_recipe[200, 2.0].sd is None
    assert by_recipe[200, 2.0].mean == pytest.approx(50.0)
    # one run has its interval over images
    single = paper_tables(two[:1])[1].ours[f"w = 2, {own}", "S = 100"]
    interval = two[0].report.results["cifar100"].modes["both"].auroc_interval  # type: ignore[union-attr]
    assert single.sd is None and interval is not None
    assert single.interval == (100 * interval[0], 100 * interval[1])
    # ground-truth labels are another row
    truth = altered(
        whole,
        tmp_path / "t",
        {"outliers.guidance_scale": 2.0, "outliers.start_timestep": 100, "labels.source": "ground_truth"},
        "cifar10",
        rename=PAPER,
    )
    first, second, *_ = paper_tables([truth])
    assert set(first.ours) == {(f"{TRUTH_ROW}, {own}", column) for column in ("CIFAR-100", "SVHN")}
    assert not second.ours
