from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from sdviz.analysis import Evidence, PictureLibrary
from sdviz.baselines import Images, Reference
from sdviz.baselines.distance.knn import KNN
from sdviz.bundle import Bundle
from sdviz.config.nodes import ConfigError
from sdviz.config.reading import load_config
from sdviz.config.tree import EvaluationConfig
from sdviz.data import DataError
from sdviz.evaluation import read_report
from sdviz.nn.batches import encode
from sdviz.pipeline import PipelineError, Workspace, config_hash, read_labels, run_stages, stage_names
from sdviz.pipeline.backbone import load_backbone
from sdviz.pipeline.encoder import load_encoder
from sdviz.pipeline.sd_test import read_sd_test
from sdviz.pipeline.shared.sets import evaluation_sets
from tests.tiny_runs import OTHER_COLOURS, write_pictures, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = (
    "{method: dn2, k: 1}, {method: knn, k: 3}, {method: ssd, network: encoder},"
    " {method: multiclass_ad, epochs: 1, k: 1},"
    " {method: mscl, epochs: 1, k: 1}, {method: fake_it, epochs: 1, k: 1, generator_steps: 4},"
    " {method: rot, epochs: 1}, msp, energy, entropy, png_size, input_complexity"
)
EXTRAS = (
    "outliers.limit=12",
    "detector.backbone={width: 4, simclr: null,"
    " pretraining: {data: 'folder:%s', total_steps: 4, batch_size: 8}}",
    "evaluation.classes={'folder:%s': [pink]}",
    "evaluation.sd_test={start_timestep: 80, guidance_scale: 3, limit: 3}",
    f"evaluation.baselines=[{METHODS}]",
)


@pytest.fixture(scope="module")
def compared(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run with a backbone, few sources, SD outliers of held-out images and every method beside it."""
    folder = tmp_path_factory.mktemp("compared")
    path = write_tiny_detector_config(folder)
    near = load_config(path).evaluation.near[0].removeprefix("folder:")
    taught = write_pictures(folder / "taught", 6, OTHER_COLOURS)
    overrides = [one % (taught if "backbone" in one else near) if "%s" in one else one for one in EXTRAS]
    work = Workspace(folder / "run", load_config(path, overrides), lambda progress: None, lambda: False)
    work.folder.mkdir()
    assert run_stages(work)
    return work


def test_only_the_asked_images_have_outliers_and_stand_in_the_banks(compared: Workspace) -> None:
    assert len(compared.images) > 12
    banks = load_file(compared.folder / "bundle" / "features.safetensors")
    rows = pq.read_table(compared.folder / "bundle" / "features.parquet").to_pylist()
    ids = [row["id"] for row in rows if row["role"] == "id"]
    assert len(ids) == len(banks["id_features"]) == len(banks["outlier_features"]) == 12
    assert ids == compared.sources.ids.tolist()
    row_of = {one: row for row, one in enumerate(compared.images.ids.tolist())}
    at = [row_of[one] for one in ids]
    assert at == sorted(at)
    np.testing.assert_array_equal(banks["id_labels"], read_labels(compared)[at])
    outliers = pq.read_table(compared.folder / "bundle" / "outliers.parquet")
    assert outliers["source_id"].to_pylist() == ids
    assert outliers["label"].to_pylist() == banks["outlier_labels"].tolist()
    # the clusters are of all images
    labels = compared.folder / "bundle" / "pseudo_labels.parquet"
    assert pq.read_metadata(labels).num_rows == len(compared.images)


def test_the_detector_starts_from_the_backbone(compared: Workspace) -> None:
    backbone, encoder = load_backbone(compared), load_encoder(compared)
    images = compared.sources.images
    kept = load_file(compared.folder / "features" / "no_training" / "features.safetensors")["id_features"]
    np.testing.assert_array_equal(kept, encode(backbone, images, "cpu").astype(np.float16))
    assert np.abs(encode(encoder, images, "cpu") - kept).max() > 1e-3
    shipped = Bundle.load(compared.folder / "bundle", "cpu").encoder
    assert shipped is not None
    np.testing.assert_allclose(encode(shipped, images, "cpu"), kept, atol=0.02)
    assert any("folder" in name and "small" in name for name in read_report(report_of(compared)).frechet)


def report_of(work: Workspace) -> Path:
    return work.folder / "bundle" / "report.json"


def test_a_set_may_be_cut_to_some_of_its_classes(compared: Workspace) -> None:
    near = next(one for one in evaluation_sets(compared) if one.role == "near")
    assert {near.images.label_name(row) for row in range(len(near.images))} == {"pink"}
    assert read_report(report_of(compared)).results[near.key].n == len(near.images)


def test_a_class_that_a_set_has_not_is_found_first(compared: Workspace, tmp_path: Path) -> None:
    name = compared.config.evaluation.near[0]
    evaluation = compared.config.evaluation.model_copy(update={"classes": {name: ("violet",)}})
    config = compared.config.model_copy(update={"evaluation": evaluation})
    work = Workspace(tmp_path, config, lambda progress: None, lambda: False)
    with pytest.raises(DataError, match="has no class violet"):
        run_stages(work)
    assert not (tmp_path / "encoder").exists()


def test_outliers_of_held_out_images_are_a_set_of_their_own(compared: Workspace) -> None:
    made = read_sd_test(compared)
    assert compared.test is not None
    held_out = dict(zip(compared.test.ids.tolist(), compared.test.images, strict=True))
    assert len(made) == 3
    for one, picture in zip(made.ids.tolist(), made.images, strict=True):
        source = held_out[one.rpartition("~")[0]]
        assert (source != picture).any()
        assert np.abs(source.astype(int) - picture).mean() < 100
    report = read_report(report_of(compared))
    assert report.results["sd-outliers"].role == "sd"
    assert report.means["sd"]["both"].auroc == report.results["sd-outliers"].modes["both"].auroc


def test_every_method_has_scores_and_figures_that_agree(compared: Workspace) -> None:
    report = read_report(report_of(compared))
    keys = [one.key for one in compared.config.evaluation.baselines]
    assert list(report.baselines) == keys
    assert report.baselines["ssd@encoder"].title.endswith("on the encoder")
    table = pq.read_table(compared.folder / "bundle" / "baselines.parquet").to_pandas()
    scores = pq.read_table(compared.folder / "bundle" / "scores.parquet").to_pandas()
    assert table["id"].tolist() == scores["id"].tolist()
    inside = table[table["role"] == "id"]
    for key in keys:
        for name, result in report.baselines[key].results.items():
            outside = table[table["set"] == name]
            truth = np.repeat([0, 1], [len(inside), len(outside)])
            expected = roc_auc_score(truth, np.concatenate([inside[key], outside[key]]))
            assert result.auroc == pytest.approx(expected, abs=1e-12), (key, name)


def test_a_column_is_what_the_method_says_alone(compared: Workspace) -> None:
    encoder = load_backbone(compared)
    bank = Images(encode(encoder, compared.sources.images, "cpu"), ids=compared.sources.ids)
    method = KNN(k=3).fit(Reference(bank))
    table = pq.read_table(compared.folder / "bundle" / "baselines.parquet").to_pandas()
    for one in evaluation_sets(compared):
        expected = method.score(Images(encode(encoder, one.images.images, "cpu"), ids=one.images.ids))
        np.testing.assert_allclose(table[table["set"] == one.key]["knn"], expected, atol=1e-6)


def test_a_stop_keeps_the_methods_that_are_done(compared: Workspace, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "run")
    again = tmp_path / "run"
    for one in ("baselines", "evaluation", "bundle"):
        (again / f"{one}.done.json").unlink()
    kept = {p.name: p.read_bytes() for p in (again / "baselines").glob("*.safetensors")}
    done = "mscl.safetensors"
    (again / "baselines" / done).unlink()
    asked = iter([False] * 2)

    def stop() -> bool:
        return next(asked, True)

    assert not run_stages(Workspace(again, compared.config, lambda progress: None, stop))
    assert not (again / "baselines" / done).exists()
    # asked to stop while a method's scores are saved, it keeps them and ends there
    saved, later = again / "baselines" / done, again / "baselines" / "rot.safetensors"
    later.unlink()
    assert not run_stages(Workspace(again, compared.config, lambda progress: None, saved.exists))
    assert saved.read_bytes() == kept[done] and not later.exists()
    assert run_stages(Workspace(again, compared.config, lambda progress: None, lambda: False))
    assert {p.name: p.read_bytes() for p in (again / "baselines").glob("*.safetensors")} == kept
    assert (again / "bundle" / "report.json").read_bytes() == report_of(compared).read_bytes()


def test_stages_stand_only_where_they_are_asked_for(compared: Workspace, tmp_path: Path) -> None:
    plain = load_config(write_tiny_detector_config(tmp_path))
    added = {"backbone", "sd_test", "baselines"}
    assert not added & set(stage_names(plain))
    assert added <= set(stage_names(compared.config))


def test_what_was_added_leaves_the_hashes_of_other_stages(compared: Workspace) -> None:
    plain = compared.config.model_copy(
        update={"evaluation": compared.config.evaluation.model_copy(update={"baselines": (), "sd_test": None})}
    )
    for stage in ("encoder", "pseudo_labels", "diffusion", "outliers", "backbone"):
        assert config_hash(plain, stage) == config_hash(compared.config, stage)
    for stage in ("detector", "features", "evaluation", "bundle"):
        assert config_hash(plain, stage) != config_hash(compared.config, stage)
    assert compared.config.detector is not None
    other = compared.config.detector.model_copy(update={"backbone": None})
    assert config_hash(compared.config.model_copy(update={"detector": other}), "outliers") == config_hash(
        compared.config, "outliers"
    )


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("evaluation.baselines=[knn, knn]", "names knn twice"),
        ("evaluation.baselines=[{method: msp, k: 3}]", "msp has no k"),
        ("evaluation.baselines=[knnn]", "knnn"),
        ("evaluation.classes={digits: [a]}", "digits is not among near, far and validation"),
        ("evaluation.sd_test={start_timestep: 500}", "evaluation.sd_test.start_timestep 500 is above"),
    ],
)
def test_bad_settings_are_refused_with_their_name(override: str, texts: str, tmp_path: Path) -> None:
    path = write_tiny_detector_config(tmp_path)
    with pytest.raises(ConfigError, match=texts):
        load_config(path, [override])


def test_a_methods_settings_reach_it() -> None:
    asked = EvaluationConfig.model_validate({"baselines": ({"method": "multiclass_ad", "k": 7, "epochs": 3},)})
    method = asked.baselines[0].build()
    assert method.key == "multiclass_ad"
    assert (method.settings.k, method.settings.epochs) == (7, 3)


def test_too_few_images_for_a_method_are_one_line(compared: Workspace, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "run")
    for one in ("baselines", "evaluation", "bundle"):
        (tmp_path / "run" / f"{one}.done.json").unlink()
    shutil.rmtree(tmp_path / "run" / "baselines")
    asked = compared.config.evaluation.baselines[0].model_copy(update={"k": 50})
    evaluation = compared.config.evaluation.model_copy(update={"baselines": (asked,)})
    config = compared.config.model_copy(update={"evaluation": evaluation})
    work = Workspace(tmp_path / "run", config, lambda progress: None, lambda: False)
    with pytest.raises((PipelineError, ValueError), match="50 neighbours of 12 ID images"):
        run_stages(work)
    assert json.loads((tmp_path / "run" / "features.done.json").read_text())


def test_pages_make_outliers_of_held_out_images_again(compared: Workspace) -> None:
    made = read_sd_test(compared)
    bundle = Bundle.load(compared.folder / "bundle", "cpu")
    library = PictureLibrary(Evidence(bundle))
    assert all(map(library.must_generate, made.ids.tolist()))
    pictures = library.show(made.ids)
    assert pictures.found.all() and not pictures.missing
    assert not any(map(library.must_generate, made.ids.tolist()))
    assert np.abs(pictures.images.astype(int) - made.images).mean() < 1
    gone = PictureLibrary(Evidence(bundle)).show(["folder/nowhere/0.png~0"])
    assert not gone.found.any() and gone.missing
