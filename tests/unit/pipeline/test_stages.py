from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sdviz.bundle import Bundle
from sdviz.config.reading import load_config
from sdviz.config.tree import RunConfig
from sdviz.files import leftovers
from sdviz.pipeline import STAGES as REGISTERED
from sdviz.pipeline import (
    config_hash,
    read_labels,
    stage_names,
)
from sdviz.scan.metrics import agreement
from tests.stages import work_in
from tests.tiny_runs import write_tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


STAGES = (
    "encoder",
    "pseudo_labels",
    "diffusion",
    "outliers",
    "detector",
    "controls",
    "features",
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
        # no training reads the sets
        ("evaluation.near=[]", "features"),
        ("evaluation.limit=5", "features"),
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
        ("evaluation.controls=[noise]", {"controls", "features", "evaluation", "bundle"}),
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
    asked_for = {"backbone", "sd_test", "baselines", "tuning", "baseline_scores", "generated"}
    assert {*stage_names(config), *stage_names(more), *asked_for} == set(REGISTERED)
