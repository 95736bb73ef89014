from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdviz.bundle import Bundle
from sdviz.config.reading import load_config
from sdviz.nn.phase_means import measure_phases
from sdviz.pipeline import (
    config_hash,
    run_stages,
)
from sdviz.pipeline.diffusion import load_noise_predictor
from tests.stages import work_in
from tests.tiny_runs import write_tiny_config


def test_channel_means_belong_to_the_outliers_and_not_to_the_training(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    unshuffled = ["diffusion.unet.pixel_unshuffle=2"]
    known, left = (load_config(path, [*unshuffled, f"diffusion.phase_means={x}"]) for x in ("true", "false"))
    assert config_hash(known, "diffusion") == config_hash(left, "diffusion")
    for stage in ("outliers", "sd_test", "bundle"):
        assert config_hash(known, stage) != config_hash(left, stage)


@pytest.mark.parametrize("known", [True, False])
def test_a_run_knows_the_channel_means_of_its_images(tmp_path: Path, one_thread: None, known: bool) -> None:
    path = write_tiny_config(tmp_path, clusterer_steps=2, diffusion_steps=2)
    overrides = ("diffusion.unet.pixel_unshuffle=2", f"diffusion.phase_means={str(known).lower()}")
    work = work_in(tmp_path / "run", path, *overrides)
    assert run_stages(work)
    bundle = Bundle.load(work.folder / "bundle", device="cpu")
    expected = measure_phases(work.images.images, 2) if known else None
    assert bundle.manifest.phases == expected
    mine, kept = load_noise_predictor(work).phases, bundle.noise_predictor.phases
    assert (mine is not None) == (kept is not None) == known
    if mine is not None and kept is not None:
        assert torch.equal(mine.gain, kept.gain)
