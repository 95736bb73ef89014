from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel

from sdviz.bundle import Bundle
from sdviz.diffusion.schedule import NoiseSchedule
from tests.bundle_folders import WEIGHTS
from tests.stages import everything_in

MakeBundle = Callable[..., Bundle]


MakeImages = Callable[..., np.ndarray]


def test_diffusers_opens_it_without_sdviz(folder: Path, tiny_images: MakeImages) -> None:
    unet = UNet2DModel.from_pretrained(folder / "unet")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    bundle = Bundle.load(folder, "cpu")
    x, t, c = torch.randn(2, 3, 8, 8), torch.tensor([5, 300]), torch.tensor([0, 3])
    with torch.no_grad():
        theirs = unet(x, t, class_labels=c).sample
        ours = bundle.noise_predictor(x, t, c)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(bundle.schedule.alphas_cumprod.float(), scheduler.alphas_cumprod)
    assert scheduler.config.prediction_type == "epsilon"


def test_every_file_is_weights_or_json(folder: Path) -> None:
    assert sorted(everything_in(folder)) == [
        "bundle.json",
        "clusterer.safetensors",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        WEIGHTS,
    ]


def test_another_schedule_is_saved_as_it_is(tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    made = tiny_bundle()
    made.schedule = NoiseSchedule.linear(500, 2e-4, 0.03)
    loaded = made.save(tmp_path / "bundle")
    assert torch.equal(loaded.schedule.alphas_cumprod, made.schedule.alphas_cumprod)
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "bundle" / "scheduler")
    assert torch.equal(scheduler.alphas_cumprod.double(), made.schedule.alphas_cumprod)
