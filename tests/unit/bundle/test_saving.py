from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from torch import nn

from sdviz.bundle import MANIFEST, Bundle
from sdviz.bundle.saving import save_weights, write_folder
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.detector import Detector, detector_outputs
from sdviz.nn.encoder import Encoder
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


def test_weights_are_halved_only_where_that_is_exact(tmp_path: Path) -> None:
    module = nn.Module()
    tensors = {
        "exact": torch.tensor([0.5, -2.0, 1024.0]),
        "fine": torch.tensor([0.5, 1 + 2**-20]),
        "huge": torch.tensor([1.0, 1e6]),
        "zero": torch.zeros(3),
        "counts": torch.tensor([3]),
    }
    for name, value in tensors.items():
        module.register_buffer(name, value)
    save_weights(module, tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    assert found["exact"].dtype == torch.float16
    assert {found[name].dtype for name in ("fine", "huge", "zero")} == {torch.float32}
    assert found["counts"].dtype == torch.int64
    assert all(torch.equal(found[name].to(value.dtype), value) for name, value in tensors.items())


def test_the_manifest_lists_every_file_with_its_hash(tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    made = tiny_bundle()
    (tmp_path / "b").mkdir()
    write_folder(made, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / MANIFEST).read_text())
    files = everything_in(tmp_path / "b")
    del files[MANIFEST]
    assert manifest["files"] == {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    assert manifest["clusterer"] == dict(made.clusterer.config) and manifest["encoder"] is None  # type: ignore[union-attr]


@pytest.mark.parametrize("unit", [False, True])
def test_a_detector_comes_back_with_what_its_heads_see(
    tiny_bundle: MakeBundle, tiny_images: MakeImages, tmp_path: Path, unit: bool
) -> None:
    bundle = tiny_bundle()
    detector = Detector(Encoder("small", 4), 3, zero_heads=False, unit_features=unit).eval()
    Bundle(bundle.manifest, bundle.noise_predictor, bundle.schedule, clusterer=None, detector=detector).save(
        tmp_path / "b"
    )
    again = Bundle.load(tmp_path / "b", "cpu").detector
    assert again is not None and again.unit_features == unit
    images = tiny_images(3)
    for ours, theirs in zip(detector_outputs(again, images), detector_outputs(detector, images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
