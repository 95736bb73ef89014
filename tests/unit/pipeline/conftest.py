from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdviz.config.reading import load_config
from sdviz.pipeline import Workspace, run_stages
from tests.stages import work_in
from tests.tiny_runs import (
    COLOURS,
    OTHER_COLOURS,
    write_pictures,
    write_tiny_config,
    write_tiny_detector_config,
)


@pytest.fixture
def copied(scored_run: Path, tmp_path: Path) -> Workspace:
    """A complete run of this test's own; its pictures are the other one's."""
    shutil.copytree(scored_run, tmp_path / "run")
    return work_in(tmp_path / "run", scored_run.parent / "tiny.yaml")


def _pictures(folder: Path, suffix: str) -> Path:
    for name, colour in (("blue", (40, 60, 200)), ("red", (210, 50, 60))):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (colour[0] + i, *colour[1:])).save(folder / name / f"{i}{suffix}")
    return folder


@pytest.fixture
def work_on(tmp_path: Path) -> Callable[..., Workspace]:
    """Makes a workspace on six pictures, in files of the type that `suffix` names."""

    def make(suffix: str, *overrides: str) -> Workspace:
        path = write_tiny_config(tmp_path / "config")
        source = _pictures(tmp_path / suffix.strip("."), suffix)
        config = load_config(path, [f"data.id=folder:{source}", *overrides])
        return Workspace(tmp_path, config, lambda progress: None, lambda: False)

    return make


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


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run with a backbone, few sources, SD outliers of held-out images and every method beside it.

    Its OOD set has a picture of the ID set, too.
    """
    folder = tmp_path_factory.mktemp("compared")
    path = write_tiny_detector_config(folder)
    shutil.copy(folder / "pictures" / "red" / "0.png", folder / "near" / "pink" / "copy.png")
    near = load_config(path).evaluation.near[0].removeprefix("folder:")
    taught = write_pictures(folder / "taught", 6, OTHER_COLOURS)
    overrides = [one % (taught if "backbone" in one else near) if "%s" in one else one for one in EXTRAS]
    work = Workspace(folder / "run", load_config(path, overrides), lambda progress: None, lambda: False)
    work.folder.mkdir()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run_stages(work)
    finally:
        torch.set_num_threads(before)
    return work


# one epoch, and k that 40 images allow
TUNED_METHODS = (
    "{method: dn2, k: 1}, {method: dn2, k: 2, network: encoder}, {method: ssd, normalize: false},"
    " {method: multiclass_ad, epochs: 1}, {method: fake_it, epochs: 1, generator_steps: 2}, msp"
)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A complete run on five classes, tuned on left-out ones."""
    folder = tmp_path_factory.mktemp("tuned")
    path = write_tiny_detector_config(folder, diffusion_steps=4, steps=4, epochs=1)
    near = write_pictures(folder / "other-near", 4, {"black": (20, 20, 20)})
    pictures = write_pictures(
        folder / "five", 10, COLOURS | {"grey": (120, 120, 120), "white": (220, 220, 220)}
    )
    overrides = [
        f"data.id=folder:{pictures}",
        "labels={source: ground_truth}",
        f"evaluation.near=['folder:{near}']",
    ]
    overrides += [
        "evaluation.tuning={trials: 3, criterion: left_out, holdout: 0.4}",
        f"evaluation.baselines=[{TUNED_METHODS}]",
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = work_in(folder / "run", path, *overrides)
        assert run_stages(work)
    finally:
        torch.set_num_threads(before)
    return work


@pytest.fixture
def untuned(tuned: Workspace, tmp_path: Path) -> Workspace:
    """The same run before its trials, which will be on the validation set."""
    folder = tmp_path / "run"
    left = shutil.ignore_patterns("tuning*", "baseline_scores*")
    shutil.copytree(tuned.folder, folder, ignore=left)
    own = tuned.config.evaluation.tuning
    assert own is not None
    other = {"tuning": own.model_copy(update={"criterion": "validation"})}
    evaluation = tuned.config.evaluation.model_copy(update=other)
    return replace(tuned, folder=folder, config=tuned.config.model_copy(update={"evaluation": evaluation}))
