from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from sdviz.config.reading import load_config
from sdviz.config.tree import RunConfig
from sdviz.data import DataError
from sdviz.nn.weights import EncoderError
from sdviz.pipeline import PipelineError, Workspace, estimate, run_stages
from sdviz.pipeline.planning.preflight import check_overlap, check_run, jpeg_warning
from sdviz.pipeline.shared.sets import some_images
from tests.tiny_runs import write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return write_tiny_detector_config(tmp_path)


def refusals(config: RunConfig, folder: Path) -> set[str]:
    """The messages of a run, which makes nothing, and of a dry run."""
    folder.mkdir()
    work = Workspace(folder, config, lambda progress: None, lambda: False)
    told: list[str] = []
    said = set()
    for attempt in (
        lambda: run_stages(work, lambda stage, complete: told.append(stage)),
        lambda: estimate(config),
    ):
        with pytest.raises((PipelineError, DataError, EncoderError)) as error:
            attempt()
        said.add(str(error.value))
    assert told == ["encoder"]
    assert not list(folder.rglob("*.safetensors"))
    return said


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["detector.frozen_blocks=5"], "detector.frozen_blocks 5: small has 4 blocks"),
        (["encoder.weights={0}/none.pth"], "encoder.weights: there is no file {0}/none.pth"),
        (
            ["labels={{source: file, path: '{0}/none.csv'}}"],
            "{0}/none.csv: not a table with columns id and label",
        ),
        (["evaluation.near=['folder:{0}/nowhere']"], "folder:{0}/nowhere: no such folder"),
        (
            ["data.size_px=9"],
            "diffusion.unet at data.size_px 9: image size 9 px is not a multiple of 2, as this U-Net needs",
        ),
    ],
)
def test_what_would_fail_hours_in_is_refused_at_once(
    tmp_path: Path, config_path: Path, overrides: list[str], expected: str
) -> None:
    settings = [one.format(tmp_path) for one in overrides]
    said = refusals(load_config(config_path, settings), tmp_path / "run")
    assert said == {expected.format(tmp_path)}


def test_more_neighbours_than_there_are_images_are_refused(tmp_path: Path, config_path: Path) -> None:
    # a run counts the images that are left when some are held out, a dry run all
    n = len(Workspace(tmp_path, load_config(config_path), lambda progress: None, lambda: False).images)
    said = refusals(load_config(config_path, ["evaluation.score.k=37"]), tmp_path / "run")
    assert said == {
        f"evaluation.score.k 37: there are only {images} ID images to be neighbours" for images in (n, 36)
    }
    assert n < 36


def test_inception_weights_that_are_missing_or_others_are_refused(tmp_path: Path, config_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "inception.pth"
    config = load_config(config_path, [f"evaluation.inception_weights={path}"])
    (said,) = refusals(config, tmp_path / "run")
    assert said.startswith(f"evaluation.inception_weights: no Inception weights at {path}: put the file of")
    torch.save({"fc.weight": torch.zeros(1)}, path)
    (said,) = refusals(config, tmp_path / "again")
    assert (
        said == f"evaluation.inception_weights: {path}: not the weights of torch-fidelity's Inception network"
    )


def test_pictures_smaller_than_a_patch_are_refused(tmp_path: Path, config_path: Path) -> None:
    config = load_config(config_path, ["encoder.arch=timm:vit_tiny_patch16_224", "encoder.input_px=8"])
    (said,) = refusals(config, tmp_path / "run")
    assert said.startswith(
        "encoder.input_px 8: timm:vit_tiny_patch16_224 cannot take such pictures, set a larger encoder.input_px"
    )


def test_one_set_by_two_names_is_refused(
    tmp_path: Path, config_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(config_path, ["evaluation={near: ['folder:pictures']}"])
    said = refusals(config, tmp_path / "run")
    assert said == {
        f"evaluation: folder:pictures and folder:{tmp_path}/pictures are the same images, and have two roles"
    }
    config = load_config(
        config_path, ["data.size_px=32", "evaluation={near: [digits], validation: ['digits:test']}"]
    )
    said = refusals(config, tmp_path / "digits")
    assert said == {"evaluation: digits:test and digits are the same images, and have two roles"}


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("data.id=folder:{0}/pictures", "evaluation.near=['folder:{0}/pictures/red']"),
        ("data.id=folder:{0}/pictures/red", "evaluation.near=['folder:{0}/pictures']"),
        ("data.id=folder:{0}/link", "evaluation.near=['folder:{0}/pictures/red']"),
        ("evaluation.validation=['folder:{0}/near/pink']", "evaluation.far=[]"),
    ],
)
def test_a_set_inside_another_is_refused(tmp_path: Path, config_path: Path, inner: str, outer: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    config = load_config(config_path, [one.format(tmp_path) for one in (inner, outer)])
    (said,) = refusals(config, tmp_path / "run")
    assert re.fullmatch(r"evaluation: folder:\S+ lies inside folder:\S+: its images would have two roles", said)


def test_equal_images_are_counted_before_anything_is_trained(
    tmp_path: Path, config_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def work(*overrides: str) -> Workspace:
        config = load_config(config_path, overrides)
        return Workspace(tmp_path / "run", config, lambda progress: None, lambda: bool(caplog.records))

    (tmp_path / "run").mkdir()
    one = sorted((tmp_path / "pictures" / "red").iterdir())[0]
    one.with_name("again.png").write_bytes(one.read_bytes())
    side = "train" if f"folder/pictures/red/{one.name}" in " ".join(work().images.ids) else "test"
    for i in range(2):
        (tmp_path / "near" / "pink" / f"copy{i}.png").write_bytes(one.read_bytes())

    equal = f"images of folder:{tmp_path}/near that are in {side}, too: 2"
    with pytest.raises(DataError) as error:
        run_stages(work("data.on_overlap=refuse"))
    assert str(error.value) == f"data.on_overlap=refuse: {equal}"
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    for policy, what in (("drop", "left out"), ("keep", "kept")):
        caplog.clear()
        assert not run_stages(work(f"data.on_overlap={policy}"))
        assert [record.getMessage() for record in caplog.records] == [
            f"images of folder:{tmp_path}/pictures that are copies of others, pixel by pixel: 1",
            f"{equal}, {what} (data.on_overlap)",
        ]
        counted = json.loads((tmp_path / "run" / "overlap.json").read_text())
        assert counted["sets"] == {f"folder:{tmp_path}/near": {side: 2}} and counted["copies"] == 1
        # once for a run
        assert check_overlap(work(f"data.on_overlap={policy}")) == []
    # without a detector there is nothing to measure
    assert len(check_overlap(work("detector=null"))) == 1


@pytest.mark.parametrize("source", ["file", "ground_truth"])
def test_given_labels_are_checked_before_the_encoder_is_trained(
    tmp_path: Path, config_path: Path, source: str
) -> None:
    work = Workspace(tmp_path / "run", load_config(config_path), lambda progress: None, lambda: False)
    if source == "file":
        table = tmp_path / "labels.csv"
        table.write_text("id,label\n" + "".join(f"{one},-1\n" for one in work.images.ids))
        overrides, expected = [f"labels={{source: file, path: '{table}'}}"], "is -1, not a word"
    else:
        flat = tmp_path / "flat"
        flat.mkdir()
        for i in range(30):
            Image.fromarray(np.full((8, 8, 3), 8 * i, np.uint8)).save(flat / f"{i}.png")
        overrides, expected = ["labels.source=ground_truth", f"data.id=folder:{flat}"], "have no label"
    work = Workspace(
        tmp_path / "run", load_config(config_path, overrides), lambda progress: None, lambda: False
    )
    work.folder.mkdir()
    told: list[str] = []
    with pytest.raises(DataError, match=expected):
        run_stages(work, lambda stage, complete: told.append(stage))
    assert told == ["encoder"] and not list(work.folder.rglob("*.safetensors"))


def test_a_run_is_not_asked_for_what_its_last_stages_do_without(scored_run: Path) -> None:
    path = scored_run.parent / "tiny.yaml"
    config = load_config(path, ["encoder.weights=/nowhere/w.pth"])
    check_run(config, ("bundle",), 5)
    check_run(config, ("detector", "bundle"), 5)
    with pytest.raises(EncoderError, match="encoder.weights: there is no file"):
        check_run(config, ("encoder", "bundle"), 5)


@pytest.mark.parametrize(
    ("suffix", "jpeg", "said"),
    [
        (".jpg", "null", "went through JPEG and outliers.jpeg is not set: the detector can learn 'no JPEG'"),
        (".png", "{}", "did not go through JPEG and outliers.jpeg is set"),
        (".jpg", "{}", None),
        (".png", "null", None),
    ],
)
def test_outliers_that_are_compressed_otherwise_than_id_images(
    work_on: Callable[..., Workspace],
    suffix: str,
    jpeg: str,
    said: str | None,
) -> None:
    work = work_on(suffix, f"outliers.jpeg={jpeg}", "encoder={}", "detector={}", "data.holdout=0.5")
    for images in (work.images, some_images(work.config)):
        warning = jpeg_warning(work.config, images)
        assert (warning is None) == (said is None)
        assert said is None or said in str(warning)
    without_detector = work.config.model_copy(update={"detector": None})
    assert jpeg_warning(without_detector, work.images) is None


def test_jpeg_images_are_warned_of_before_the_first_stage(
    tmp_path: Path, config_path: Path, caplog: pytest.LogCaptureFixture, cli: Callable[..., Result]
) -> None:
    expected = "went through JPEG and outliers.jpeg is not set"
    for png in [*(tmp_path / "pictures").rglob("*.png")]:
        Image.open(png).save(png.with_suffix(".jpg"))
        png.unlink()
    config = load_config(config_path)
    (tmp_path / "run").mkdir()
    work = Workspace(tmp_path / "run", config, lambda progress: None, lambda: bool(caplog.records))
    assert not run_stages(work)
    (message,) = [record.getMessage() for record in caplog.records]
    assert expected in message and not list(work.folder.rglob("*.safetensors"))
    shown = cli("run", config_path, "--dry-run").stdout
    assert f"# warning: {message}\n" in shown
