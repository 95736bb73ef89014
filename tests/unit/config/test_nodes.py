from __future__ import annotations

import pytest
from pydantic import ValidationError

from sdviz.config.nodes import (
    ClustererConfig,
    DetectorConfig,
    DiffusionConfig,
    EncoderConfig,
    Node,
    OptimizerConfig,
    ScanConfig,
    SelfLabelConfig,
    SimCLRConfig,
    UNetConfig,
    ViewsConfig,
)

NODES = (
    UNetConfig, DiffusionConfig, ViewsConfig, OptimizerConfig, SimCLRConfig, EncoderConfig, ScanConfig,
    SelfLabelConfig, ClustererConfig, DetectorConfig,
)  # fmt: skip


@pytest.mark.parametrize("node", NODES)
def test_a_branch_has_defaults_and_takes_no_other_key_or_change(node: type[Node]) -> None:
    made = node()
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        node.model_validate({"colour": 3})
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(node.model_fields)), 1)
    assert node.model_validate(made.model_dump()) == made


def test_numbers_are_not_taken_from_text_and_are_finite() -> None:
    for wrong in ("3", True, 2.5):
        with pytest.raises(ValidationError):
            DiffusionConfig.model_validate({"batch_size": wrong})
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            DiffusionConfig.model_validate({"learning_rate": wrong})


@pytest.mark.parametrize(
    ("settings", "factor"),
    [({}, 2), ({"arch": "ddpm"}, 1), ({"pixel_unshuffle": 1}, 1), ({"arch": "ddpm", "pixel_unshuffle": 4}, 4)],
)
def test_the_small_network_unshuffles_unless_told_otherwise(settings: dict[str, object], factor: int) -> None:
    assert UNetConfig.model_validate(settings).unshuffle_factor == factor


def test_only_trained_timesteps_are_of_the_schedule() -> None:
    with pytest.raises(ValidationError, match="max_train_timestep 11 is above num_train_timesteps 10"):
        DiffusionConfig(num_train_timesteps=10, max_train_timestep=11)
    assert DiffusionConfig(num_train_timesteps=10, max_train_timestep=10).max_train_timestep == 10


@pytest.mark.parametrize("area", [(0.0, 1.0), (0.9, 0.1), (0.5, 4.1)])
def test_a_window_has_a_size(area: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="low"):
        ViewsConfig(area=area)
    assert ViewsConfig(area=(0.5, 4.0)).area == (0.5, 4.0)


def test_encoders_are_ours_or_timms() -> None:
    for arch in ("small", "resnet18", "timm:vit_tiny_patch16_224"):
        assert EncoderConfig(arch=arch).arch == arch
    for arch in ("resnet50", "timm:", "Small"):
        with pytest.raises(ValidationError, match="must be small, resnet18 or timm:NAME"):
            EncoderConfig(arch=arch)


def test_a_batch_of_the_detector_has_halves() -> None:
    assert DetectorConfig(batch_size=6).batch_size == 6
    with pytest.raises(ValidationError, match="batch_size 7 has no halves"):
        DetectorConfig(batch_size=7)
