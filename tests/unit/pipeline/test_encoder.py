from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sdviz.data import DataError
from sdviz.pipeline import (
    encoder,
)
from tests.stages import everything_in, work_in
from tests.tiny_runs import OTHER_COLOURS, write_pictures, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def goes_on_to_the_same_weights(tmp_path: Path, config: Path, settings: str, first_part: str) -> None:
    """A first training and SimCLR after it, stopped and resumed in either, against both undisturbed."""
    whole = work_in(tmp_path / "whole", config, settings)
    assert encoder.make(whole) is not None
    expected = everything_in(whole.folder / "encoder")
    for after in (3, 4, 20):
        asked = iter([False] * after)
        part = work_in(tmp_path / "parts", config, settings, stop=lambda asked=asked: next(asked, True))
        assert encoder.make(part) is None
    assert encoder.make(work_in(tmp_path / "parts", config, settings)) is not None
    parts = everything_in(tmp_path / "parts" / "encoder")
    for name in (first_part, "projection.safetensors", "encoder.safetensors"):
        assert parts[name] == expected[name], name


def test_pretraining_on_labels_of_another_set(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    other = write_pictures(tmp_path / "other", 8, {"a": (250, 250, 250), "b": (10, 10, 10)} | OTHER_COLOURS)
    settings = f"encoder.pretraining={{data: 'folder:{other}', labels: [1, 3], total_steps: 6, batch_size: 8}}"
    plain = work_in(tmp_path / "plain", config, settings, "encoder.simclr=null")
    metrics = encoder.make(plain)
    assert metrics is not None and metrics["encoder_images_seen"] == 48
    assert not (plain.folder / "encoder" / "projection.safetensors").exists()
    first = load_file(plain.folder / "encoder" / "encoder.safetensors")
    assert all(
        (first[k] == v).all() for k, v in load_file(plain.folder / "encoder" / "pretrained.safetensors").items()
    )
    goes_on_to_the_same_weights(tmp_path, config, settings, "pretrained.safetensors")
    nobody = settings.replace("[1, 3]", "[7, 9]")
    with pytest.raises(DataError, match=r"no image with a label in 7\.\.9 to pre-train on"):
        encoder.make(work_in(tmp_path / "nobody", config, nobody))


def test_distillation_from_another_network_stopped_and_resumed(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)
    other = write_pictures(tmp_path / "other", 8, OTHER_COLOURS)
    teacher = "teacher: {arch: small, width: 6, input_px: 16, seed: 3}"
    settings = (
        f"encoder.distillation={{{teacher}, data: ['folder:{other}'], limit: 5, total_steps: 6, batch_size: 8}}"
    )
    plain = work_in(tmp_path / "plain", config, settings, "encoder.simclr=null")
    metrics = encoder.make(plain)
    assert metrics is not None and metrics["encoder_images_seen"] == 48
    first = load_file(plain.folder / "encoder" / "encoder.safetensors")
    # the further set, its limit and the teacher change what is learned
    for other_settings in ("limit: 4", "teacher: {arch: small, width: 6, input_px: 16, seed: 4}"):
        key = other_settings.split(":")[0]
        changed = settings.replace("limit: 5" if key == "limit" else teacher, other_settings)
        work = work_in(tmp_path / key, config, changed, "encoder.simclr=null")
        assert encoder.make(work) is not None
        second = load_file(work.folder / "encoder" / "encoder.safetensors")
        assert any((second[name] != value).any() for name, value in first.items())
    goes_on_to_the_same_weights(tmp_path, config, settings, "distilled.safetensors")
