"""The command `generate`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from sdviz import data
from sdviz.bundle import Bundle
from tests.command_line import manifest, one_line_error
from tests.tiny_runs import write_pictures


@pytest.fixture
def bundle(tiny_bundle: Callable[..., Bundle], tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    tiny_bundle(class_names=("blue", "green", "red")).save(path)
    return path


@pytest.fixture
def generate(cli: Callable[..., Result], bundle: Path, tmp_path: Path) -> Callable[..., Result]:
    """`generate` on a folder of 24 pictures in three classes."""
    pictures = write_pictures(tmp_path / "pictures")
    base = (
        "generate",
        "--bundle",
        bundle,
        "--images",
        f"folder:{pictures}",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    return lambda *args: cli(*base, *args)


def test_generate_twice(generate: Callable[..., Result], tmp_path: Path) -> None:
    result = generate("--limit", "10", "-S", "300", "-w", "1.5", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["there"], answer["made"]) == (0, 10)
    assert "outliers 10/10, 0:00 left" in result.stderr
    lines = manifest(tmp_path / "out")
    assert len(lines) == len(list((tmp_path / "out").glob("*.png"))) == 10
    assert {(line["S"], line["w"], line["bundle_sha256"]) for line in lines} == {
        ("300", "1.5", answer["bundle_sha256"])
    }
    for line in lines:
        with Image.open(tmp_path / "out" / line["file"]) as png:
            assert (png.format, png.size, png.mode) == ("PNG", (8, 8), "RGB")

    result = generate("--limit", "10", "-S", "300", "-w", "1.5")
    assert result.exit_code == 0
    assert result.stdout == f"10 there, 0 made: {tmp_path / 'out' / 'manifest.csv'}\n"
    assert result.stderr == ""


def test_generate_says_which_recipe_the_folder_holds(generate: Callable[..., Result], tmp_path: Path) -> None:
    assert generate("--limit", "2").exit_code == 0
    expected = f"{tmp_path / 'out'} holds outliers of another recipe (seed 0, now 1): name another folder"
    assert one_line_error(generate("--limit", "2", "--seed", "1")) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [("right", None), ("RED", {"2"}), ("1", {"1"})],
)
def test_generate_targets(
    generate: Callable[..., Result], tmp_path: Path, target: str, expected: set[str] | None
) -> None:
    assert generate("--limit", "6", "--target", target).exit_code == 0
    lines = manifest(tmp_path / "out")
    if expected is None:
        assert all(line["target_label"] == line["label"] for line in lines)
    else:
        assert {line["target_label"] for line in lines} == expected


def test_every_option_reaches_the_manifest(generate: Callable[..., Result], tmp_path: Path) -> None:
    options = "--start-timestep 40 --guidance-scale -1 --steps 3 --solver ddim --eta 0.5 --interval 0.1,1.5"
    result = generate(*options.split(), "--seed", "7", "--batch-size", "5", "--limit", "3")
    assert result.exit_code == 0, result.output
    line = manifest(tmp_path / "out")[0]
    assert (line["S"], line["w"], line["steps"], line["solver"], line["eta"], line["seed"]) == (
        "40",
        "-1.0",
        "3",
        "ddim",
        "0.5",
        "7",
    )
    assert (line["guidance_sigma_lo"], line["guidance_sigma_hi"]) == ("0.1", "1.5")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("-S 401", "start_timestep S = 401 is outside 0..400"),
        ("-S -1", "start_timestep S = -1 is outside 0..400"),
        ("-S many", "Invalid value for '--start-timestep' / '-S'"),
        ("-w 21", "guidance_scale w = 21.0 is outside -1..20"),
        ("-w nan", "guidance_scale w = nan is not a number in -1..20"),
        ("--steps 0", "num_inference_steps = 0 is outside 1..1000"),
        ("--solver euler", "solver 'euler' is not one of ddim, ddpm, dpmpp_2m"),
        ("--eta 2", "eta = 2.0 is outside 0..1"),
        ("--format zip", "--format 'zip' is not one of folder, npz, parquet"),
        ("--interval 1", "--interval 1: must be two numbers, as in 0.2,1.5"),
        ("--interval 2,1", "guidance_interval (2.0, 1.0) is not (sigma_lo, sigma_hi)"),
        (
            "--target car",
            "--target 'car' is not random, right, 0..2 or a class of the bundle: blue, green, red",
        ),
        ("--target 3", "--target '3' is not random, right, 0..2 or a class of the bundle"),
        ("--seed -1", "seed = -1 is outside 0.."),
        ("--limit 0", "Invalid value for '--limit'"),
        ("--device tpu9", "device 'tpu9' is not one of"),
        ("--images nothing", "no data set 'nothing'"),
        ("--images shapes:all", "shapes has"),
        ("--images folder:/no/such", "folder:/no/such: no such folder"),
        ("--images folder:", "folder: needs a path, as in folder:PATH"),
        ("--images parquet:/no/such", "/no/such does not exist"),
        ("--images cifar10:test", "cifar10 is not on this machine: run `python -m sdviz download cifar10`"),
        ("--bundle /no/such", "/no/such is not a bundle: it has no bundle.json"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    generate: Callable[..., Result], tmp_path: Path, data_root: Path, options: str, expected: str
) -> None:
    assert one_line_error(generate(*options.split())).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_is_one_line(
    generate: Callable[..., Result], tmp_path: Path, cli: Callable[..., Result]
) -> None:
    (tmp_path / "file").touch()
    assert (
        one_line_error(generate("--out", tmp_path / "file")) == f"{tmp_path / 'file'} is a file, not a folder"
    )
    assert (
        one_line_error(generate("--out", tmp_path / "file" / "out"), 1)
        == f"{tmp_path / 'file' / 'out'}: Not a directory"
    )
    taken = one_line_error(generate("--out", tmp_path / "pictures"))
    assert taken.endswith("pictures is not empty and not a folder of outliers: name another")


def test_a_changed_bundle_is_refused(generate: Callable[..., Result], bundle: Path) -> None:
    file = bundle / "clusterer.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert one_line_error(generate()).startswith(f"{file} was changed or cut")


def test_a_bad_picture_is_named_and_left_out_on_request(
    generate: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "pictures" / "red" / "bad.png").write_bytes(b"no picture")
    message = one_line_error(generate())
    assert "1 of 25 images cannot be used: red/bad.png" in message
    result = generate("--skip-bad", "--json")
    assert result.exit_code == 0
    assert "warning: " in result.stderr and "red/bad.png" in result.stderr
    assert json.loads(result.stdout)["made"] == 24


def test_an_interrupted_generate_goes_on(generate: Callable[..., Result], tmp_path: Path) -> None:
    asked: list[int] = []
    pressed: list[bool] = []
    before = signal.getsignal(signal.SIGALRM)

    # a real Ctrl-C from outside, once the first batch is written
    def watch(number: int, frame: object) -> None:
        asked.append(number)
        # once: a tick that was due already would interrupt the writing of the manifest, too
        if not pressed and list((tmp_path / "out").glob("[!.]*.png")):
            pressed.append(True)
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGINT)

    # where the tests run in the background, SIGINT is ignored from the start
    before_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, watch)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        result = generate("--batch-size", "1", "-S", "400", "--steps", "40")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, before_int)
    assert asked
    assert one_line_error(result, 130) == f"interrupted; the same command continues with {tmp_path / 'out'}"
    there = len(list((tmp_path / "out").glob("*.png")))
    assert 0 < there < 24
    assert len(manifest(tmp_path / "out")) == there

    result = generate("--batch-size", "1", "-S", "400", "--steps", "40", "--json")
    answer = json.loads(result.stdout)
    assert (answer["there"], answer["made"]) == (there, 24 - there)
    assert len(manifest(tmp_path / "out")) == 24


def test_images_of_another_kind_are_labelled_by_the_clusterer(
    cli: Callable[..., Result], bundle: Path, tmp_path: Path
) -> None:
    # a folder with classes of its own, whose labels mean nothing to this bundle
    pictures = write_pictures(tmp_path / "others")
    out = tmp_path / "out"
    result = cli(
        "generate", "--bundle", bundle, "--images", f"folder:{pictures}", "--out", out, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    made = Bundle.load(bundle, device="cpu")
    images = data.load(f"folder:{pictures}", size_px=8)
    guessed = made.pseudo_label(images.images)[0]
    assert [int(line["label"]) for line in manifest(out)] == guessed.tolist()
    assert (guessed != images.labels).any()
    assert np.unique(images.labels).tolist() == [0, 1, 2]
