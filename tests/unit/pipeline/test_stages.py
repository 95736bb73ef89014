from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.config.reading import load_config
from sdviz.config.tree import RunConfig
from sdviz.data import DataError
from sdviz.diffusion.training import train_noise_predictor
from sdviz.files import leftovers
from sdviz.nn.loop import Execution
from sdviz.nn.unet import build_noise_predictor
from sdviz.pipeline import STAGES as REGISTERED
from sdviz.pipeline import (
    PipelineError,
    Workspace,
    adopt_stages,
    config_hash,
    read_labels,
    run_stages,
    stage_names,
)
from sdviz.scan.metrics import agreement
from tests.stages import begun, everything_in, work_in
from tests.tiny_runs import write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


STAGES = (
    "encoder",
    "pseudo_labels",
    "diffusion",
    "outliers",
    "detector",
    "features",
    "controls",
    "evaluation",
    "bundle",
)


def test_a_run_ends_in_a_bundle_with_a_detector(scored_run: Path) -> None:
    work = work_in(scored_run, scored_run.parent / "tiny.yaml")
    assert stage_names(work.config) == STAGES
    bundle = Bundle.load(scored_run / "bundle", device="cpu")
    m = bundle.manifest
    assert (m.labels_from, m.n_clusters) == ("SCAN", 3)
    assert m.score is not None and m.score.k == 3
    assert m.metrics["detector_epochs"] == 3
    assert m.metrics["outliers"] == len(work.images)
    # clusters by which nothing was chosen, and how well they agree
    labels = read_labels(work)
    found = agreement(labels, work.images.labels, 3, 3)
    assert m.metrics["cluster_accuracy_train"] == found.accuracy > 1 / 3
    for name, of_classes in zip(m.class_names, found.confusion, strict=True):
        assert ("blue", "green", "red")[int(of_classes.argmax())] in name

    test = work.test
    assert test is not None
    assert not set(test.ids.tolist()) & set(work.images.ids.tolist())
    features = bundle.features(test.images)
    assert features.shape == (len(test), m.metrics["feature_dim"]) == (len(test), 16)
    kept = load_file(scored_run / "features" / "ood_features.safetensors")
    np.testing.assert_allclose(features, kept["test"], rtol=2e-2, atol=2e-2)  # float16 in the file
    scored = pq.read_table(scored_run / "evaluation" / "scores.parquet").to_pydict()
    assert np.isfinite(scored["total"]).all()
    assert len(scored["total"]) == len(test) + 2 * 8
    report = json.loads((scored_run / "evaluation" / "report.json").read_text())
    assert set(report["means"]) == {"near", "validation"}
    assert not list(scored_run.rglob("*state.pt")) and not leftovers(scored_run)


def test_a_complete_run_is_left_as_it_is(copied: Workspace) -> None:
    before = everything_in(copied.folder)
    assert begun(copied) == [(stage, True) for stage in STAGES]
    assert everything_in(copied.folder) == before


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.near=['folder:{0}/nowhere']", "no such folder"),
        ("evaluation.validation=[no-such-set]", "no data set 'no-such-set'"),
        ("evaluation.far=[digits]", "digits has images of 32 px and no other size, not 8"),
        ("data.test_split=val", "val"),
    ],
)
@pytest.mark.parametrize("source", ["scan", "ground_truth"])
def test_a_missing_set_is_found_in_the_first_stage(
    tmp_path: Path, data_root: Path, override: str, expected: str, source: str
) -> None:
    config = write_tiny_detector_config(tmp_path)
    work = work_in(tmp_path / "run", config, override.format(tmp_path), f"labels.source={source}")
    told: list[str] = []
    with pytest.raises(DataError, match=expected):
        run_stages(work, lambda stage, complete: told.append(stage))
    assert told == ["encoder"]
    assert not list(work.folder.rglob("*.safetensors")) and not list(work.folder.glob("*.done.json"))


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("data.limit=30", "encoder"),
        ("views.noise=0.1", "encoder"),
        ("encoder.simclr.temperature=0.3", "encoder"),
        ("encoder.seed=1", "encoder"),
        ("labels.scan.heads=3", "pseudo_labels"),
        ("diffusion.learning_rate=2e-3", "diffusion"),
        ("defaults.guidance_scale=2", "outliers"),
        ("outliers.jpeg={}", "outliers"),
        ("outliers.seed=1", "outliers"),
        ("detector.outlier_weight=0.4", "detector"),
        ("evaluation.near=[]", "detector"),  # its snapshots show every set
        ("evaluation.limit=5", "detector"),
    ],
)
def test_a_change_reaches_every_stage_from_the_first_that_knows_of_it(
    scored_run: Path, override: str, first: str
) -> None:
    path = scored_run.parent / "tiny.yaml"
    before, after = load_config(path), load_config(path, [override])
    changed = [stage for stage in STAGES if config_hash(before, stage) != config_hash(after, stage)]
    assert changed == list(STAGES[STAGES.index(first) :])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.score.k=5", {"evaluation", "bundle"}),
        ("evaluation.bootstrap=5", {"evaluation", "bundle"}),
        ("evaluation.inception_weights=here.pth", {"evaluation", "bundle"}),
        ("evaluation.controls=[noise]", {"controls", "evaluation", "bundle"}),
        ("clusterer.width=5", {"bundle"}),
        ("bundle.outlier_pictures=0", {"bundle"}),
        ("profile=other", {"bundle"}),
        ("device=auto", set()),
    ],
)
def test_a_change_reaches_these_stages_only(scored_run: Path, override: str, expected: set[str]) -> None:
    path = scored_run.parent / "tiny.yaml"
    before, after = load_config(path), load_config(path, [override])
    assert {stage for stage in STAGES if config_hash(before, stage) != config_hash(after, stage)} == expected


def test_labels_that_are_given_know_no_encoder(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"
    given = ["labels.source=ground_truth", "labels.n_clusters=null"]
    before, after = load_config(path, given), load_config(path, [*given, "encoder.seed=1", "views.noise=0.1"])
    stages = stage_names(before)
    same = [stage for stage in stages if config_hash(before, stage) == config_hash(after, stage)]
    assert same == ["pseudo_labels", "clusterer", "diffusion", "outliers"]


@pytest.mark.parametrize("source", ["scan", "ground_truth"])
def test_stages_on_all_images_are_not_taken_by_a_run_that_holds_some_out(tmp_path: Path, source: str) -> None:
    path = write_tiny_detector_config(tmp_path, diffusion_steps=2, steps=2)
    settings = [] if source == "scan" else ["labels={source: ground_truth}"]
    plain = work_in(tmp_path / "plain", path, *settings, "detector=null")
    stages = stage_names(plain.config)
    for stage in stages:
        (plain.folder / f"{stage}.done.json").write_text(
            json.dumps({"config_sha256": config_hash(plain.config, stage), "metrics": {}})
        )
    for overrides, taken in (
        (["detector=null", "data.holdout=0.5"], stages[:-1]),  # nothing is held out in either
        ([], ()),
        (["detector=null"], stages),
    ):
        new = work_in(tmp_path / f"new{len(taken)}", path, *settings, *overrides)
        assert adopt_stages(new.folder, plain.folder, new.config) == list(taken)


def test_stages_of_a_set_with_a_test_split_are_taken_by_a_run_with_a_detector() -> None:
    config = RunConfig.model_validate({"data": {"id": "shapes"}, "encoder": {}, "detector": {}})
    without = config.model_copy(update={"detector": None})
    early = ("encoder", "pseudo_labels", "clusterer", "diffusion")
    assert [config_hash(config, s) for s in early] == [config_hash(without, s) for s in early]
    # trained on the test split, it has none
    config, without = (
        one.model_copy(update={"data": one.data.model_copy(update={"split": "test"})})
        for one in (config, without)
    )
    assert not any(config_hash(config, s) == config_hash(without, s) for s in early)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # the reconstructions are there for the control already
        ("[right_label]", "[right_label]", {"detector", "features", "controls", "evaluation", "bundle"}),
        ("[noise]", "[noise]", {"outliers", "detector", "features", "controls", "evaluation", "bundle"}),
    ],
)
def test_outliers_know_whether_the_detector_wants_reconstructions(
    scored_run: Path, before: str, after: str, expected: set[str]
) -> None:
    path = scored_run.parent / "tiny.yaml"
    first = load_config(path, [f"evaluation.controls={before}", "detector.reconstructed_id=0"])
    second = load_config(path, [f"evaluation.controls={after}", "detector.reconstructed_id=0.3"])
    assert {s for s in STAGES if config_hash(first, s) != config_hash(second, s)} == expected
    # how much of them is the detector's own affair
    third = load_config(path, [f"evaluation.controls={after}", "detector.reconstructed_id=0.4"])
    assert config_hash(second, "outliers") == config_hash(third, "outliers")


def test_outliers_know_of_controls_only_whether_they_want_reconstructions(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"

    def sha(controls: str) -> str:
        overrides = ["detector.reconstructed_id=0", f"evaluation.controls={controls}"]
        return config_hash(load_config(path, overrides), "outliers")

    # the second is what configurations have that say nothing
    wanting = ("[right_label]", "[no_training, right_label, noise]", "[right_label_as_id, lambda_zero]")
    assert len({sha(one) for one in wanting}) == 1
    assert len({sha(one) for one in ("[]", "[noise]", "[lambda_zero, no_training]")}) == 1
    assert sha("[]") != sha("[right_label]")


def test_features_know_whether_there_are_reconstructions(scored_run: Path) -> None:
    path, plain = scored_run.parent / "tiny.yaml", "detector.reconstructed_id=0"
    first = load_config(path, [plain, "evaluation.controls=[noise]"])
    second = load_config(path, [plain, "evaluation.controls=[noise, right_label]"])
    changed = {s for s in STAGES if config_hash(first, s) != config_hash(second, s)}
    assert changed == {"outliers", "features", "controls", "evaluation", "bundle"}


def test_another_k_makes_the_evaluation_and_the_bundle_again(copied: Workspace, scored_run: Path) -> None:
    work = work_in(copied.folder, scored_run.parent / "tiny.yaml", "evaluation.score.k=5")
    with pytest.raises(PipelineError, match="stage evaluation was made with another configuration"):
        run_stages(work)
    for stage in ("evaluation", "bundle"):
        (work.folder / f"{stage}.done.json").unlink()
    assert [stage for stage, skipped in begun(work) if not skipped] == ["evaluation", "bundle"]
    m = Bundle.load(work.folder / "bundle", "cpu").manifest
    assert m.score is not None and m.score.k == 5
    assert json.loads((work.folder / "evaluation" / "report.json").read_text()) != json.loads(
        (scored_run / "evaluation" / "report.json").read_text()
    )


def test_all_stages_end_in_a_bundle_that_works(tmp_path: Path, one_thread: None) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path, clusterer_steps=60))
    begun: list[tuple[str, bool]] = []
    assert run_stages(work, lambda stage, complete: begun.append((stage, complete)))
    assert begun == [("pseudo_labels", False), ("clusterer", False), ("diffusion", False), ("bundle", False)]
    assert not (work.folder / "diffusion" / "state.pt").exists()

    bundle = Bundle.load(work.folder / "bundle", device="cpu")
    m = bundle.manifest
    assert m.class_names == ("blue", "green", "red")
    assert (m.dataset, m.labels_from, m.image_size) == (work.config.data.id, "ground truth", 8)
    assert (m.max_train_timestep, m.defaults.start_timestep, m.defaults.solver) == (400, 50, "ddim")
    assert m.config["diffusion"]["batch_size"] == 4
    assert m.metrics["images"] == 24
    assert (m.metrics["diffusion_steps"], m.metrics["diffusion_images_seen"]) == (40, 160)
    assert 0 < m.metrics["diffusion_loss"] < 1.1
    assert m.metrics["diffusion_training_sec"] > 0
    labels, _ = bundle.pseudo_label(work.images.images)
    assert (labels == work.images.labels).mean() == 1
    assert bundle.generate(work.images.images[:2], ids=work.images.ids[:2]).outliers.shape == (2, 8, 8, 3)

    # a second time everything is skipped, and a part made otherwise is refused
    begun.clear()
    assert run_stages(work, lambda stage, complete: begun.append((stage, complete)))
    assert begun == [(stage, True) for stage in ("pseudo_labels", "clusterer", "diffusion", "bundle")]
    other = work_in(work.folder, tmp_path / "tiny.yaml", "clusterer.width=5")
    with pytest.raises(PipelineError, match="stage clusterer was made with another configuration"):
        run_stages(other)


def test_a_stop_before_a_stage_or_inside_one_leaves_it_undone(tmp_path: Path, one_thread: None) -> None:
    config = write_tiny_config(tmp_path)
    folder = tmp_path / "run"
    assert not run_stages(work_in(folder, config, stop=lambda: True))
    assert not (folder / "labels.done.json").exists()
    # stopped in the 6th step of diffusion: resumed from there
    asked = iter([False] * 8)
    inside = work_in(
        folder, config, stop=lambda: (folder / "clusterer.done.json").exists() and not next(asked, None)
    )
    asked = iter([True] * 6)
    assert not run_stages(inside)
    assert (folder / "clusterer.done.json").exists()
    assert not (folder / "diffusion.done.json").exists()
    assert torch.load(folder / "diffusion" / "state.pt", weights_only=True)["step"] == 5
    assert run_stages(work_in(folder, config))


def test_a_finished_training_state_put_in_the_folder_is_taken(tmp_path: Path, one_thread: None) -> None:
    work = work_in(tmp_path / "run", write_tiny_config(tmp_path, clusterer_steps=2))
    config, state = work.config.diffusion, tmp_path / "elsewhere" / "state.pt"
    network = build_noise_predictor(config.unet, 3, 8)
    averaged, complete = train_noise_predictor(
        network, work.images.images, work.images.labels, work.schedule, config, Execution("cpu", state)
    )
    assert complete
    (work.folder / "diffusion").mkdir()
    shutil.copy(state, work.folder / "diffusion" / "state.pt")
    told: list[str] = []
    assert run_stages(replace(work, on_progress=lambda p: told.append(p.stage)))
    assert set(told) == {"clusterer"}
    bundle = Bundle.load(work.folder / "bundle", device="cpu")
    assert bundle.manifest.metrics["diffusion_steps"] == 40
    for name, value in averaged.unet.state_dict().items():
        assert torch.equal(bundle.noise_predictor.unet.state_dict()[name], value.half().float())


def test_the_hash_covers_what_a_stage_depends_on(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    before = load_config(path)
    wider = load_config(path, ["clusterer.width=5"])
    assert config_hash(before, "clusterer") != config_hash(wider, "clusterer")
    assert config_hash(before, "diffusion") == config_hash(wider, "diffusion")
    assert config_hash(before) != config_hash(wider)
    assert config_hash(before) == config_hash(load_config(path, ["device=auto"]))
    for key in ("seed=1", "data.limit=20"):
        assert config_hash(before, "pseudo_labels") != config_hash(load_config(path, [key]), "pseudo_labels")


def test_every_stage_is_registered_by_the_name_that_runs_know(scored_run: Path) -> None:
    config = load_config(scored_run.parent / "tiny.yaml")
    more = RunConfig.model_validate({"data": {"id": "shapes"}, "labels": {"source": "ground_truth"}})
    assert {*stage_names(config), *stage_names(more), "backbone", "sd_test", "baselines"} == set(REGISTERED)
