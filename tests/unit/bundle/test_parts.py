"""Networks and schedules that do not fit bundle.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdviz.bundle import Bundle, BundleError
from sdviz.nn.classifier import SmallClassifier
from tests.bundle_folders import WEIGHTS, edit_json, edit_manifest, refusal, sign

MakeBundle = Callable[..., Bundle]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_clusters": 2, "class_names": ["a", "b"]}, "num_class_embeds is 4, bundle.json needs 3"),
        ({"pixel_unshuffle": 2}, "in_channels is 3, bundle.json needs 12"),
        ({"image_size": 16}, "sample_size is 8, bundle.json needs 16"),
    ],
)
def test_a_unet_that_is_not_the_manifests(folder: Path, change: dict[str, Any], message: str) -> None:
    edit_manifest(folder, **change)
    assert refusal(folder) == f"{folder / 'unet/config.json'}: {message}"


def test_a_unet_configuration_without_classes(folder: Path) -> None:
    edit_json(folder / "unet/config.json", num_class_embeds=None)
    sign(folder)
    assert refusal(folder).startswith(f"{folder / 'unet/config.json'}: num_class_embeds is None")


@pytest.mark.parametrize(
    "change", [{"block_out_channels": "x"}, {"norm_num_groups": 0}, {"down_block_types": ["NoBlock"]}]
)
def test_a_unet_configuration_that_builds_nothing(folder: Path, change: dict[str, Any]) -> None:
    edit_json(folder / "unet/config.json", **change)
    sign(folder)
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: not this bundle's U-Net")


def test_unet_weights_of_another_network(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = "conv_norm_out.bias"
    for spoilt in (
        {k: v for k, v in weights.items() if k != name},
        weights | {"more.bias": torch.zeros(8)},
        weights | {name: torch.zeros(9)},
    ):
        save_file(spoilt, folder / WEIGHTS)
        sign(folder)
        assert refusal(folder).startswith(f"{folder / WEIGHTS}: not this bundle's U-Net (")


def test_a_clusterer_of_another_width_or_class_count(
    tiny_bundle: MakeBundle, folder: Path, tmp_path: Path
) -> None:
    file = folder / "clusterer.safetensors"
    save_file(SmallClassifier(3, width=8).state_dict(), file)
    sign(folder)
    assert refusal(folder).startswith(f"{file}: not this bundle's clusterer")
    save_file(SmallClassifier(5, width=4).state_dict(), file)
    sign(folder)
    edit_manifest(folder, clusterer={"n_classes": 5, "width": 4})
    assert refusal(folder) == f"{file}: 5 classes, but bundle.json says 3"
    edit_manifest(folder, clusterer={"n_classes": 3, "depth": 4})
    assert refusal(folder).startswith(f"{file}: not this bundle's clusterer")
    odd = tiny_bundle()
    odd._networks["clusterer"] = SmallClassifier(5, width=4)
    with pytest.raises(BundleError, match="5 classes, but bundle.json says 3"):
        odd.save(tmp_path / "odd")
    assert not (tmp_path / "odd").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "scaled_linear"},
        {"prediction_type": "v_prediction"},
        {"beta_end": None},
        {"beta_end": "x"},
        {"beta_end": 5.0},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": 100},
    ],
)
def test_a_schedule_that_is_not_supported(folder: Path, change: dict[str, Any]) -> None:
    file = folder / "scheduler/scheduler_config.json"
    edit_json(file, **change)
    sign(folder)
    assert refusal(folder).startswith(f"{file}: ")
