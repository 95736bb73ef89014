from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdviz.analysis.paper_tables import OURS_ROW, TRUTH_ROW, other_sets, paper_tables
from sdviz.analysis.records import BundleRecord

Altered = Callable[..., BundleRecord]
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


def test_other_data_is_never_next_to_the_papers(altered: Altered, tmp_path: Path) -> None:
    shapes = altered(tmp_path / "s", {"outliers.guidance_scale": 2.0}, rename=PAPER)
    assert all(not table.ours for table in paper_tables([shapes]))
    assert other_sets([shapes]) == {}
    # cifar10, but not one set of the paper's
    stand_ins = altered(tmp_path / "c", {"outliers.guidance_scale": 2.0}, "cifar10")
    assert all(not table.ours for table in paper_tables([stand_ins]))
    assert set(other_sets([stand_ins])) == {
        "shapes-novel",
        "shapes-empty",
        "digits",
        "shapes-novel-val (validation)",
    }


def test_ours_stands_in_the_cells_that_were_measured_and_in_no_other(altered: Altered, tmp_path: Path) -> None:
    two = [
        altered(
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
    third_run = altered(tmp_path / "c3", change, "cifar10", {"places_lsun9": 0.5}, PAPER)
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
        tmp_path / "t",
        {"outliers.guidance_scale": 2.0, "outliers.start_timestep": 100, "labels.source": "ground_truth"},
        "cifar10",
        rename=PAPER,
    )
    first, second, *_ = paper_tables([truth])
    assert set(first.ours) == {(f"{TRUTH_ROW}, {own}", column) for column in ("CIFAR-100", "SVHN")}
    assert not second.ours
