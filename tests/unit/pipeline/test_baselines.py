from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sdviz.config.nodes import ConfigError
from sdviz.config.reading import load_config
from sdviz.config.tree import EvaluationConfig, TuningConfig
from sdviz.pipeline import PipelineError, Workspace, config_hash, read_labels, run_stages, stage_names
from sdviz.pipeline.baselines import Inputs
from tests.tiny_runs import write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


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


def report_of(work: Workspace) -> Path:
    return work.folder / "bundle" / "report.json"


def test_a_stop_keeps_the_methods_that_are_done(compared: Workspace, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "run")
    again = tmp_path / "run"
    for one in ("baselines", "baseline_scores", "evaluation", "bundle"):
        (again / f"{one}.done.json").unlink()
    kept = {p.name: p.read_bytes() for p in (again / "baselines").glob("*.safetensors")}
    done = "mscl.safetensors"
    (again / "baselines" / done).unlink()
    asked = iter([False] * 2)

    def stop() -> bool:
        return next(asked, True)

    assert not run_stages(Workspace(again, compared.config, lambda progress: None, stop))
    assert not (again / "baselines" / done).exists()
    # asked to stop while a method's weights are saved, it keeps them and ends there
    saved, later = again / "baselines" / done, again / "baselines" / "rot.safetensors"
    later.unlink()
    assert not run_stages(Workspace(again, compared.config, lambda progress: None, saved.exists))
    assert saved.read_bytes() == kept[done] and not later.exists()
    assert run_stages(Workspace(again, compared.config, lambda progress: None, lambda: False))
    assert {p.name: p.read_bytes() for p in (again / "baselines").glob("*.safetensors")} == kept
    assert (again / "bundle" / "report.json").read_bytes() == report_of(compared).read_bytes()


def test_stages_stand_only_where_they_are_asked_for(compared: Workspace, tmp_path: Path) -> None:
    plain = load_config(write_tiny_detector_config(tmp_path))
    added = {"backbone", "sd_test", "baselines", "baseline_scores"}
    assert not added & set(stage_names(plain))
    assert added <= set(stage_names(compared.config))


def test_what_was_added_leaves_the_hashes_of_other_stages(compared: Workspace) -> None:
    plain = compared.config.model_copy(
        update={"evaluation": compared.config.evaluation.model_copy(update={"baselines": (), "sd_test": None})}
    )
    for stage in ("encoder", "pseudo_labels", "diffusion", "outliers", "backbone", "detector", "controls"):
        assert config_hash(plain, stage) == config_hash(compared.config, stage)
    for stage in ("features", "evaluation", "bundle"):
        assert config_hash(plain, stage) != config_hash(compared.config, stage)
    assert compared.config.detector is not None
    other = compared.config.detector.model_copy(update={"backbone": None})
    assert config_hash(compared.config.model_copy(update={"detector": other}), "outliers") == config_hash(
        compared.config, "outliers"
    )


def test_one_more_set_trains_no_method_again(compared: Workspace) -> None:
    def hashes(**change: object) -> dict[str, str]:
        evaluation = compared.config.evaluation.model_copy(update={"tuning": TuningConfig(), **change})
        config = compared.config.model_copy(update={"evaluation": evaluation})
        return {stage: config_hash(config, stage) for stage in ("baselines", "tuning", "baseline_scores")}

    before, more, other = hashes(), hashes(far=("digits",)), hashes(validation=("digits",))
    assert [before[stage] == more[stage] for stage in before] == [True, True, False]
    # trials are on the validation sets
    assert [before[stage] == other[stage] for stage in before] == [True, False, False]


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


def test_a_generator_of_other_steps_makes_its_own_outliers(compared: Workspace, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "run")
    inputs = Inputs(replace(compared, folder=tmp_path / "run"))
    (four,) = [one for one in compared.config.evaluation.baselines if one.method == "fake_it"]
    made = [
        inputs.reference(four.model_copy(update={"generator_steps": steps}), lambda share: None).outliers
        for steps in (4, 9)
    ]
    kept = [
        load_file(tmp_path / "run" / "baselines" / f"fakes-{steps}.safetensors")["images"] for steps in (4, 9)
    ]
    for i in range(2):
        np.testing.assert_array_equal(made[i], kept[i])
    assert not np.array_equal(*kept)


def test_too_few_images_for_a_method_are_one_line(compared: Workspace, tmp_path: Path) -> None:
    shutil.copytree(compared.folder, tmp_path / "run")
    for one in ("baselines", "baseline_scores", "evaluation", "bundle"):
        (tmp_path / "run" / f"{one}.done.json").unlink()
    shutil.rmtree(tmp_path / "run" / "baseline_scores")
    asked = compared.config.evaluation.baselines[0].model_copy(update={"k": 50})
    evaluation = compared.config.evaluation.model_copy(update={"baselines": (asked,)})
    config = compared.config.model_copy(update={"evaluation": evaluation})
    work = Workspace(tmp_path / "run", config, lambda progress: None, lambda: False)
    with pytest.raises((PipelineError, ValueError), match="50 neighbours of 12 ID images"):
        run_stages(work)
    assert json.loads((tmp_path / "run" / "features.done.json").read_text())
