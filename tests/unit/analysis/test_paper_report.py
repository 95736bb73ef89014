from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdviz.analysis.paper_report import PaperPageError, paper_page, system_name
from sdviz.analysis.paper_tables import NO_NETWORK, OURS_ROW, other_sets, paper_tables
from sdviz.analysis.records import BundleRecord, read_record
from sdviz.bundle import Manifest
from sdviz.config.reading import load_config
from sdviz.evaluation import Report
from sdviz.evaluation.report import parse_report

SHIPPED = Path(__file__).resolve().parents[3] / "checkpoints" / "shapes"
CONFIGS = SHIPPED.parents[1] / "configs"
Make = Callable[..., BundleRecord]


@pytest.fixture(scope="module")
def shipped() -> BundleRecord:
    return read_record(SHIPPED, "shapes")


@pytest.fixture
def make(shipped: BundleRecord) -> Make:
    """Makes the record of a run on cifar10 that measured what it is told; the rest is the shipped bundle's."""

    def build(
        near: float,
        seed: int = 0,
        overrides: tuple[str, ...] = (),
        baselines: dict[str, float] | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> BundleRecord:
        seeds = (f"outliers.seed={seed}", f"detector.seed={seed}")
        config = load_config(CONFIGS / "cifar10-cpu.yaml", (*seeds, *overrides)).model_dump(mode="json")
        assert shipped.report is not None
        tree = shipped.report.model_dump(mode="json")
        one = copy.deepcopy(next(r for r in tree["results"].values() if r["role"] == "near"))
        names = {"cifar100": "near", "textures": "far", "intel_scenes": "far", "sd-outliers": "sd"}
        tree["results"] = {}
        for i, (name, role) in enumerate(names.items()):
            tree["results"][name] = copy.deepcopy(one) | {
                "role": role,
                "n": 916 if name == "cifar100" else 2000,
            }
            for mode, metrics in tree["results"][name]["modes"].items():
                value = near + 0.01 * i - 0.1 * (mode != "both")
                metrics |= {"auroc": value, "auroc_interval": [value - 0.02, value + 0.02]}
        tree["means"] = {}
        tree["controls"] = {}
        tree["seeds"] = {"outliers": seed, "detector": seed}
        metrics = tree["results"]["cifar100"]["modes"]["both"]
        tree["baselines"] = {
            key: {
                "title": key.upper(),
                "settings": {},
                "results": {n: metrics | {"auroc": v, "auroc_interval": None} for n in names},
                "means": {},
            }
            for key, v in (baselines or {}).items()
        }
        own = {"dataset": "cifar10", "config": config, "labels_from": "SCAN", "defaults": config["defaults"]}
        manifest = Manifest.model_validate(shipped.manifest.model_dump() | own | changes)
        report: Report = parse_report(json.dumps(tree), "here")
        name = f"run-{near}-{seed}"
        return BundleRecord(name, SHIPPED, manifest, f"{name}{overrides}", report)

    return build


def table_under(page: str, head: str, which: int = 0) -> list[list[str]]:
    """The rows of a table behind a heading."""
    part = page[page.index(head) :]
    tables = [block for block in part.split("\n\n") if block.startswith("|")]
    return [
        [c.strip() for c in line.strip("|").split(" | ")]
        for line in tables[which].splitlines()
        if "---" not in line
    ]


def test_a_cell_is_mean_and_spread_over_seeds(make: Make) -> None:
    values = (0.60, 0.62, 0.67)
    page = paper_page([make(v, seed) for seed, v in enumerate(values)], "this")
    table = table_under(page, "## Table 1")
    assert table[0][2] == "cifar100 (near, 916 of 10,000 images)"
    row = next(one for one in table if one[0].startswith("**SD outliers**"))
    mean, sd = 100 * np.mean(values), 100 * np.std(values, ddof=1)
    assert row[1] == "3"
    assert row[2] == f"{mean:.1f} ± {sd:.1f} ({mean - 2:.1f} to {mean + 2:.1f})"
    # the mean of far: of two sets, 2 and 3 points above near
    assert row[-1] == f"{mean + 1.5:.1f} ± {sd:.1f}"
    alone = next(one for one in table if one[0].startswith("the same, distance alone"))
    assert alone[2].startswith(f"{mean - 10:.1f} ± ")


def test_one_seed_has_no_spread_and_says_so(make: Make) -> None:
    row = table_under(paper_page([make(0.6)], "this"), "## Table 1")[1]
    assert row[1:3] == ["1", "60.0 (58.0 to 62.0)"]


def test_other_methods_have_rows_with_the_seeds_they_were_measured_on(make: Make) -> None:
    records = [make(0.6, 0, baselines={"knn": 0.5, "rot": 0.55}), make(0.6, 1, baselines={"knn": 0.54})]
    table = table_under(paper_page(records, "this"), "## Table 1")
    rows = {row[0]: row for row in table}
    assert rows["KNN"][1:3] == ["2", f"52.0 ± {100 * np.std([0.5, 0.54], ddof=1):.1f}"]
    assert rows["ROT"][1:3] == ["1", "55.0"]


def test_networks_and_labels_are_kept_apart(make: Make) -> None:
    records = [make(0.6), make(0.5, 0, ("detector.backbone=null",)), make(0.7, labels_from="ground truth")]
    names = [system_name(one) for one in records]
    assert names == [
        "small (labels of tinyimagenet), SCAN labels",
        "small (SimCLR on cifar10), SCAN labels",
        "small (labels of tinyimagenet), ground truth labels",
    ]
    page = paper_page(records, "this")
    assert [line[4:] for line in page.splitlines() if line.startswith("### ") and "S = 100" in line] == [
        f"{name}; S = 100, w = 2" for name in names
    ]


def test_what_else_differs_is_named_and_not_averaged(make: Make) -> None:
    records = [make(0.6), make(0.64, 1), make(0.5, 0, ("detector.outlier_weight=0",))]
    page = paper_page(records, "this")
    name = "small (labels of tinyimagenet), SCAN labels"
    heads = [
        line[4:] for line in page.splitlines() if line.startswith("### ") and line.endswith("; S = 100, w = 2")
    ]
    assert heads == [f"{name}; S = 100, w = 2", f"{name}; detector.outlier_weight = 0.0; S = 100, w = 2"]
    assert table_under(page, f"### {heads[0]}")[1][1] == "2"
    assert table_under(page, f"### {heads[1]}")[1][1:3] == ["1", "50.0 (48.0 to 52.0)"]


def test_s_and_w_stand_in_their_cells_and_the_others_are_empty(make: Make) -> None:
    records = [
        make(0.6),
        make(0.65, 0, ("outliers.start_timestep=50",)),
        make(0.7, 0, ("outliers.guidance_scale=4",)),
    ]
    page = paper_page(records, "this")
    table = table_under(page, "## Table 2")
    assert table[0] == ["w", "set", "S = 50", "S = 100"]
    cells = {row[0]: [cell.split(" (")[0] for cell in row[2:]] for row in table[1:]}
    assert cells == {"w = 2": ["65.0", "60.0"], "w = 4": ["", "70.0"]}
    assert "S = 50, w = 2" in table_under(page, "## Table 3")[0]


def test_sd_outliers_as_test_set(make: Make) -> None:
    record = make(0.6, 0, ("outliers.guidance_scale=1.8",), {"fake_it": 0.4, "multiclass_ad": 0.45})
    page = paper_page([record], "this")
    rows = table_under(page, "## Table 4")
    assert [row[0] for row in rows[1:]] == [
        "**SD outliers**, distance + votes",
        "the same, distance alone",
        "FAKE_IT",
        "MULTICLASS_AD",
    ]
    assert rows[1][2] == "S = 100, w = 1.8" and rows[1][4].startswith("63.0")
    table = paper_tables([record])[3]
    found = {row: one.mean for (row, _), one in table.ours.items()}
    own = "network of ours: small"
    expected = {f"SD outliers, {own}": 63.0, f"Multi-class AD, {own}": 45.0, f"Fake-it, {own}": 40.0}
    assert found == pytest.approx(expected) and not table.notes
    assert set(found) <= set(table.rows)
    assert not {name for name in other_sets([record]) if name.startswith("sd-")}
    # trained with another w, our own cell is empty and says why; the other methods were not trained with it
    table = paper_tables([make(0.6, 0, (), {"fake_it": 0.4})])[3]
    assert [row for row, _ in table.ours] == [f"Fake-it, {own}"]
    (note,) = table.notes
    assert "trained with S = 100, w = 2, the paper's with S = 100, w = 1.8" in note
    assert "reaches 63.00 (61.0 to 65.0)" in note
    assert note in paper_page([make(0.6, 0, (), {"fake_it": 0.4})], "this")
    # tested with another S, it is not the paper's table, and the set stands apart
    other = make(0.6, 0, ("outliers.guidance_scale=1.8", "evaluation.sd_test.start_timestep=100"))
    assert not paper_tables([other])[3].ours and not paper_tables([other])[3].notes
    assert "sd-outliers" in other_sets([other])


def test_other_methods_have_rows_of_our_network(make: Make) -> None:
    methods = {"rot": 0.55, "knn": 0.5, "ssd@encoder": 0.52, "png_size": 0.51}
    table = paper_tables([make(0.6, 0, (), methods)])[0]
    ours = {row: one.mean for (row, column), one in table.ours.items() if column == "CIFAR-100"}
    own = "network of ours: small"
    expected = {f"SD outliers, {own}": 60.0, f"ROT, {own}": 55.0, f"KNN, {own}": 50.0}
    expected |= {f"SSD@ENCODER, {own}": 52.0, "PNG_SIZE, ours, no network": 51.0}
    assert ours == pytest.approx(expected)
    assert set(ours) <= set(table.rows)
    # a set of ours stands for none of the paper's
    assert {column for _, column in table.ours} == {"CIFAR-100"}


def test_the_papers_rows_are_for_the_papers_networks(make: Make) -> None:
    vit = "detector.backbone={arch: timm:vit_base_patch16_224, weights: pretrained, simclr: null}"
    record = make(0.6, 0, (vit,), {"multiclass_ad": 0.5, "knn": 0.4, "rot@encoder": 0.55})
    assert record.report is not None
    found = record.report.baselines
    found["multiclass_ad"] = found["multiclass_ad"].model_copy(update={"title": "Multi-class AD"})
    first, second, third, _ = paper_tables([record])
    assert {row for row, _ in first.ours} == {
        OURS_ROW,
        "Multi-class AD, ViT-B/16",
        "KNN, network of ours: ViT-B/16",
        "ROT@ENCODER, network of ours: small",
    }
    assert {row for row, _ in second.ours} == {"w = 2"}
    assert {row for row, _ in third.ours} == {f"AUROC (%), distance {one}" for one in ("only", "+ vote")}
    # the same network without its weights is another one
    bare = vit.replace("weights: pretrained, ", "")
    assert {row for row, _ in paper_tables([make(0.6, 0, (bare,))])[1].ours} == {
        "w = 2, network of ours: vit_base_patch16_224"
    }


def test_methods_without_a_network_are_known() -> None:
    assert set(NO_NETWORK) == {"png_size", "input_complexity"}


def test_what_cannot_be_a_page_is_refused(make: Make, shipped: BundleRecord) -> None:
    with pytest.raises(PaperPageError, match="no runs"):
        paper_page([], "this")
    with pytest.raises(PaperPageError, match="given twice"):
        paper_page([make(0.6), make(0.6)], "this")
    with pytest.raises(PaperPageError, match="shapes was trained on shapes, run-0.6-0 on cifar10"):
        paper_page([make(0.6), shipped], "this")
    unmeasured = BundleRecord("bare", SHIPPED, shipped.manifest, "x", None)
    with pytest.raises(PaperPageError, match="bare was never measured"):
        paper_page([unmeasured], "this")


def test_another_set_has_no_figures_of_the_paper(shipped: BundleRecord) -> None:
    page = paper_page([shipped], "this")
    assert "## The paper's own figures" not in page
    assert "shapes-novel (near, " in page
