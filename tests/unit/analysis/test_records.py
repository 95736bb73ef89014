from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdviz.analysis import Evidence
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
from tests.bundle_folders import sign
from tests.tiny_bundle import save_tiny_bundle

Altered = Callable[..., BundleRecord]


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


def test_seeds_and_recipe_make_no_other_family(whole: Path, altered: Altered, tmp_path: Path) -> None:
    one = read_record(whole, "one")
    same = altered(tmp_path / "same", {"outliers.start_timestep": 200, "detector.seed": 3, "seed": 1})
    other = altered(tmp_path / "other", {"detector.epochs": 7})
    assert one.family == same.family != other.family
    assert differing_keys([one, other]) == {"detector.epochs": [5, 7]}
    assert differing_keys([one, one]) == {}


def test_the_same_run_made_again_is_no_other_seed(whole: Path, altered: Altered, tmp_path: Path) -> None:
    one = read_record(whole, "one")
    again = altered(tmp_path / "again", {"profile": "again"}, auroc={"shapes-novel": 0.5})
    seed = altered(tmp_path / "seed", {"detector.seed": 3})
    s = altered(tmp_path / "s", {"outliers.start_timestep": 200})
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


def test_the_map_over_s_and_w_holds_means_over_seeds(altered: Altered, tmp_path: Path) -> None:
    def make(name: str, s: int, w: float, seed: int, value: float) -> BundleRecord:
        change = {"outliers.start_timestep": s, "outliers.guidance_scale": w, "detector.seed": seed}
        return altered(tmp_path / name, change, auroc={"shapes-novel": value})

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


def test_scores_that_cannot_be_read_are_refused_by_name(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "b"))
    (folder / "scores.parquet").write_bytes(b"no table")
    sign(folder)
    with pytest.raises(BundleError, match=r"scores\.parquet cannot be read: "):
        read_columns(read_record(folder, "b"))
