from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdviz.analysis import Evidence, MissingPart, PictureLibrary
from sdviz.bundle import Bundle
from sdviz.bundle.generated import generated_images
from sdviz.data import DataError
from sdviz.evaluation import ood_reference
from tests.bundle_folders import sign
from tests.tiny_bundle import save_tiny_bundle
from tests.tiny_runs import write_splits


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


Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.mark.parametrize(
    ("part", "file", "change"),
    [
        ("sets", "scores.parquet", lambda t: t.drop(columns="votes")),
        ("sets", "scores.parquet", lambda t: t.assign(total=np.nan)),
        ("sets", "scores.parquet", lambda t: t.assign(total=[[1.0]] * len(t))),
        ("sets", "scores.parquet", lambda t: t.assign(role="<b>")),
        ("sets", "scores.parquet", lambda t: t.assign(id=None)),
        ("sets", "scores.parquet", lambda t: t.assign(label=10.0**300)),
        ("pseudo_labels", "pseudo_labels.parquet", lambda t: t.assign(confidence="sure")),
        ("pseudo_labels", "pseudo_labels.parquet", lambda t: t.assign(id=range(len(t)))),
        ("outliers", "outliers.parquet", lambda t: t.assign(seed=None)),
        ("outliers", "outliers.parquet", lambda t: t.drop(columns="guidance_scale")),
        ("outliers", "outliers.parquet", lambda t: t.drop(columns="guidance_sigma_lo")),
        ("outliers", "outliers.parquet", lambda t: t.assign(guidance_sigma_hi=np.inf)),
        ("banks", "features.parquet", lambda t: t.iloc[1:]),
        ("banks", "features.parquet", lambda t: t.iloc[::-1]),
        ("snapshots", "snapshots.parquet", lambda t: t.iloc[1:]),
    ],
)
def test_a_foreign_table_is_one_line_that_names_its_file(
    whole: Path, tmp_path: Path, part: str, file: str, change: Change
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "b"))
    change(pd.read_parquet(folder / file)).to_parquet(folder / file, index=False)
    sign(folder)
    with pytest.raises(MissingPart, match=r"(parquet|safetensors) cannot be read: ") as error:
        getattr(Evidence(Bundle.load(folder, "cpu", lazy=True)), part)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("scores.parquet", "sets"),
        ("report.json", "report"),
        ("features.safetensors", "banks"),
        ("snapshots.safetensors", "snapshots"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"PAR1" * 9, b"[" * 100_000, b"\xff" * 64])
def test_a_spoilt_file_is_one_line(whole: Path, tmp_path: Path, file: str, part: str, content: bytes) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "b"))
    (folder / file).write_bytes(content)
    sign(folder)
    evidence = Evidence(Bundle.load(folder, "cpu", lazy=True))
    with pytest.raises(MissingPart, match=re.escape(file)) as error:
        getattr(evidence, part)
    assert str(error.value).isprintable()


def test_generated_images_are_shown_and_not_measured(
    carrying: tuple[Evidence, pd.DataFrame], evidence: Evidence
) -> None:
    found, table = carrying
    assert list(found.sets) == list(evidence.sets) == list(evidence.shown_sets)
    assert list(found.shown_sets) == [*evidence.sets, "generated", "generated-outliers"]
    assert found.reference.threshold == evidence.reference.threshold
    for name, role in (("generated", "generated"), ("generated-outliers", "sd")):
        one, rows = found.shown_sets[name], table[table["set"] == name]
        assert one.role == role and one.ids.tolist() == rows["id"].tolist()
        assert one.total.tolist() == rows["total"].tolist() and set(one.labels.tolist()) == {-1}
        assert one.features is not None and one.heads["g_in"].shape == (20, 10)
    own = table[table["set"] == "generated"]
    assert found.generated_labels.labels.tolist() == own["cluster"].tolist()
    assert np.allclose(found.generated_labels.confidence, own["confidence"])
    last = table.iloc[-1]
    assert found.generated_clusters[last["id"]] == (last["cluster"], last["told"], last["target_label"])


def test_they_stand_in_only_where_the_bundles_own_set_is_missing(
    carrying: tuple[Evidence, pd.DataFrame], evidence: Evidence, data_root: Path
) -> None:
    found = carrying[0]
    assert found.stands_in and not evidence.stands_in
    assert list(found.sets_at_hand) == [
        "generated", "generated-outliers", "shapes-novel", "shapes-novel-val", "shapes-empty", "digits",
    ]  # fmt: skip
    assert list(evidence.sets_at_hand) == list(evidence.sets)
    write_splits(data_root, "toys", {"test": np.zeros((2, 32, 32, 3), np.uint8)})
    assert not found.stands_in and list(found.sets_at_hand) == list(found.sets)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[t["set"] != "generated"],
        lambda t: t.drop(columns="png"),
        lambda t: t.assign(png="text"),
        lambda t: t.assign(set=None),
        lambda t: t.assign(told=np.nan),
    ],
)
def test_a_foreign_table_of_generated_images_is_one_line(
    carrying: tuple[Evidence, pd.DataFrame], tmp_path: Path, change: Change
) -> None:
    assert carrying[0].bundle.path is not None
    folder = Path(shutil.copytree(carrying[0].bundle.path, tmp_path / "b"))
    file = folder / "generated.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    sign(folder)
    with pytest.raises(MissingPart, match=r"generated\.parquet cannot be read: ") as error:
        _ = Evidence(Bundle.load(folder, "cpu", lazy=True)).generated
    assert str(error.value).isprintable()


def test_generated_images_that_cannot_be_read_are_one_line(
    carrying: tuple[Evidence, pd.DataFrame], tmp_path: Path
) -> None:
    assert carrying[0].bundle.path is not None
    folder = Path(shutil.copytree(carrying[0].bundle.path, tmp_path / "b"))
    file = folder / "generated.parquet"
    table = pd.read_parquet(file)
    table.at[1, "png"] = table.at[1, "png"][:500]
    table.to_parquet(file, index=False)
    sign(folder)
    bundle = Bundle.load(folder, "cpu", lazy=True)
    with pytest.raises(DataError, match="a picture in the bundle is cut short or damaged"):
        generated_images(bundle)
    # the others are still shown
    shown = PictureLibrary(Evidence(bundle)).show(table["id"][:3].tolist())
    assert shown.found.tolist() == [True, False, True]
    assert shown.missing == ("a picture in the bundle is cut short or damaged",)
    file.write_bytes(b"no table")
    sign(folder)
    with pytest.raises(DataError, match=r"generated\.parquet cannot be read"):
        generated_images(Bundle.load(folder, "cpu", lazy=True))
