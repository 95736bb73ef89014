from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdviz.bundle import Bundle
from sdviz.diffusion.training import train_noise_predictor
from sdviz.nn.loop import Execution
from sdviz.nn.unet import build_noise_predictor
from sdviz.pipeline import (
    PipelineError,
    Workspace,
    adopt_stages,
    config_hash,
    run_stages,
    stage_names,
)
from tests.stages import begun, everything_in, work_in
from tests.tiny_runs import write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_complete_run_is_left_as_it_is(copied: Workspace) -> None:
    before = everything_in(copied.folder)
    assert begun(copied) == [(stage, True) for stage in stage_names(copied.config)]
    assert everything_in(copied.folder) == before


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
