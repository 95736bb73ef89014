from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sdviz.config.nodes import DiffusionConfig, EncoderConfig, UNetConfig
from sdviz.config.reading import MAX_TEXT, key_paths, load_config, to_yaml
from sdviz.text import MAX_LINE


def test_yaml_lists_whole_numbers_and_exponents_are_taken_for_what_they_mean(shapes_yaml: Path) -> None:
    config = load_config(shapes_yaml)
    assert config.diffusion.unet.channels == (8, 16)
    assert config.diffusion.max_grad_norm == 3.0
    assert config.diffusion.learning_rate == 8e-4
    assert config.profile == "mine"
    assert config.data.id == "shapes"


def test_what_is_not_given_has_its_default(shapes_yaml: Path) -> None:
    config = load_config(shapes_yaml)
    assert config.diffusion.batch_size == DiffusionConfig().batch_size
    assert config.diffusion.unet.arch == UNetConfig().arch


def test_overrides_are_yaml_and_the_last_one_wins(shapes_yaml: Path) -> None:
    config = load_config(
        shapes_yaml,
        [
            "diffusion.unet.channels=[4, 4]",
            "diffusion.time_limit_sec=20",
            "diffusion.time_limit_sec=null",
            "clusterer.random_flip=false",
            "clusterer.learning_rate=1e-2",
            "data.id=folder:my=pictures",
        ],
    )
    assert config.diffusion.unet.channels == (4, 4)
    assert config.diffusion.time_limit_sec is None
    assert config.clusterer.random_flip is False
    assert config.clusterer.learning_rate == 0.01
    assert config.data.id == "folder:my=pictures"


@pytest.mark.parametrize(
    "overrides", [[], ["diffusion.time_limit_sec=1e-5", "profile='123'", "data.id='ü: #x'"]]
)
def test_to_yaml_and_back_gives_the_same_tree(shapes_yaml: Path, tmp_path: Path, overrides: list[str]) -> None:
    config = load_config(shapes_yaml, overrides)
    written = tmp_path / "written.yaml"
    written.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(written) == config


# every branch that may be missing, and a value of each kind
WHOLE = """
data: {id: shapes}
views: {area: [0.5, 1], max_tilt_deg: 10, colour_field: 0.5}
encoder:
  arch: "timm:vit_tiny_patch16_224"
  input_px: 32
  weights: pretrained
  pretraining: {data: digits, split: train, labels: [0, 4], optimizer: {name: sgd, momentum: 0.5}}
  simclr: {temperature: 0.2, optimizer: {learning_rate: 1e-2, warmup_steps: 3}}
labels: {source: scan, n_clusters: 3, scan: {heads: 2}, self_label: {threshold: 0.9}}
outliers:
  per_image: 2
  start_timestep: 30
  guidance_interval: [0.1, 2]
  jpeg: {quality: 80, subsampling: "4:4:4"}
detector: {epochs: 2, views: {area: [1, 1]}, reconstructed_id: 0.5}
evaluation:
  near: [shapes-novel]
  far: [digits, "folder:a b:c"]
  validation: [shapes-novel-val]
  controls: [noise]
  inception_weights: here.pth
bundle: {outlier_pictures: 0}
"""


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["encoder.simclr=null", "labels.self_label=null", "outliers.jpeg=null", "detector=null"],
        ["encoder=null", "detector=null", "labels={source: file, path: 'täble.csv'}"],
        ["labels.source=kmeans", "evaluation.near=[]", "evaluation.controls=[]", "encoder.pretraining=null"],
    ],
)
def test_every_branch_is_written_and_read_again(tmp_path: Path, overrides: list[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(WHOLE)
    config = load_config(first, overrides)
    second.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(second) == config
    # a tree with every value written out is a tree of valid keys, the optional ones too
    written, keys = yaml.safe_load(second.read_text("utf-8")), set(key_paths())

    def check(tree: dict[str, object], prefix: str) -> None:
        for key, value in tree.items():
            assert prefix + key in keys
            if isinstance(value, dict):
                check(value, f"{prefix}{key}.")

    check(written, "")


@pytest.mark.parametrize("before", ["", "encoder: null\n", "encoder: {width: 8}\n"])
def test_an_override_reaches_into_a_branch_that_is_not_there(tmp_path: Path, before: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {id: shapes}\n" + before)
    config = load_config(
        path, ["encoder.simclr.total_steps=5", "detector.epochs=2", "outliers.jpeg.quality=90"]
    )
    assert config.encoder is not None and config.encoder.simclr is not None
    assert config.encoder.simclr.total_steps == 5
    assert config.encoder.width == (8 if "width" in before else EncoderConfig().width)
    assert config.detector is not None and config.detector.epochs == 2
    assert config.outliers.jpeg is not None and config.outliers.jpeg.quality == 90


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("encoder.simclr.temprature", "encoder.simclr.temperature"),
        ("encoder.simclr.optimizer.lerning_rate", "encoder.simclr.optimizer.learning_rate"),
        ("encoder.pretraining.dat", "encoder.pretraining.data"),
        ("encoder.simcrl", "encoder.simclr"),
        ("labels.self_label.treshold", "labels.self_label.threshold"),
        ("labels.scan.head", "labels.scan.heads"),
        ("outliers.jpeg.qualty", "outliers.jpeg.quality"),
        ("detector.views.colour_feeld", "detector.views.colour_field"),
        ("evaluation.score.alhpa", "evaluation.score.alpha"),
    ],
)
def test_the_nearest_key_is_found_in_optional_branches(
    tmp_path: Path, key: str, nearest: str, message: Callable[..., str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {id: shapes}\n")
    assert message(path, f"{key}=1") == f"--set {key}: unknown key; the nearest is {nearest}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "diffusion.batchsize=3",
            "--set diffusion.batchsize: unknown key; the nearest is diffusion.batch_size",
        ),
        ("diffusion.arch=ddpm", "--set diffusion.arch: unknown key; the nearest is diffusion.unet.arch"),
        ("start_timestep=3", "--set start_timestep: unknown key; the nearest is defaults.start_timestep"),
        ("difusion.batch_size=3", "--set difusion: unknown key; the nearest is diffusion"),
        ("diffusion.batch_size=many", '--set diffusion.batch_size: expected a whole number, got "many"'),
        ("diffusion.batch_size=3.5", "--set diffusion.batch_size: expected a whole number, got 3.5"),
        ("diffusion.batch_size=true", "--set diffusion.batch_size: expected a whole number, got true"),
        ("diffusion.learning_rate='3'", '--set diffusion.learning_rate: expected a number, got "3"'),
        ("diffusion.learning_rate=.nan", "--set diffusion.learning_rate: expected a finite number, got NaN"),
        ("diffusion.learning_rate=-1", "--set diffusion.learning_rate: must be greater than 0, got -1"),
        ("diffusion.unet.channels=8", "--set diffusion.unet.channels: expected a list, got 8"),
        ("diffusion.unet.channels=[8, x]", '--set diffusion.unet.channels.1: expected a whole number, got "x"'),
        ("diffusion.unet.arch=vit", "--set diffusion.unet.arch: must be 'small' or 'ddpm', got \"vit\""),
        ("diffusion.random_flip=1", "--set diffusion.random_flip: expected true or false, got 1"),
        ("diffusion=3", "--set diffusion: expected keys beneath it, got 3"),
        ("data.id=3", "--set data.id: expected text, got 3"),
        ("seed=2020-01-01", '--set seed: expected a whole number, got "2020-01-01"'),
        ("diffusion.batch_size=[", "--set diffusion.batch_size: not YAML: line 1"),
        ("diffusion.batch_size", "--set diffusion.batch_size: must be KEY=VALUE"),
        ("diffusion..batch_size=3", "--set diffusion..batch_size=3: must be KEY=VALUE"),
        ("defaults.solver=euler", "--set defaults.solver: must be 'ddim', 'ddpm' or 'dpmpp_2m'"),
    ],
)
def test_a_wrong_override_is_named_with_its_path(
    shapes_yaml: Path, override: str, expected: str, message: Callable[..., str]
) -> None:
    assert message(shapes_yaml, override).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {id: shapes}\nsede: 1\n", "sede: unknown key; the nearest is seed"),
        ("data: {id: shapes}\nbatch: [}\n", "not YAML: line 2"),
        ("", "holds no keys"),
        ("- shapes\n", "holds no keys"),
        ("seed: 1\n", "data: is missing"),
        ("data: {split: train}\n", "data.id: is missing"),
        ("data: !!python/object/apply:os.system [ls]\n", "not YAML: line 1: could not determine a constructor"),
        ("data: &a {id: *a}\n", "not YAML: line 1: aliases are not taken"),
        ("data: {id: x}\nviews: &v {}\ndetector: {views: *v}\n", "not YAML: line 3: aliases"),
        ("data: {id: shapes}\n" + " " * MAX_TEXT, "more than 50,000 characters"),
        ("data: {id: shapes}\n1: 2\n", "1: unknown key"),
    ],
)
def test_a_wrong_file_is_named_with_the_reason(
    tmp_path: Path, text: str, expected: str, message: Callable[..., str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert message(path).startswith(f"{path}: {expected}")


ALIASES = "[&a0 [x,x,x,x,x,x,x,x,x]" + "".join(f",&a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"evaluation.near={ALIASES}]", "aliases are not taken"),
        ("data.limit=0x_", "not YAML"),
        ("data.limit=!!int x", "not YAML"),
        ("diffusion.random_flip=!!bool abc", "'abc' is neither true nor false"),
        ("data.limit=!!float abc", "not YAML"),
        ("data.limit=" + "9" * 5_000, "not YAML"),
        ("data.limit=" + "9" * 30, "a whole number beyond 64 bits"),
        ("data.limit=" + "1:" * 300 + "1.5", "not YAML"),
        ("data.limit=1e999", "expected a whole number"),
        ("evaluation.near=" + "[" * 5_000, "more than 20 levels"),
        ("evaluation.near=" + "[" * 30 + "]" * 30, "more than 20 levels"),
        ("evaluation.near=!!set {a}", "could not determine a constructor"),
        ('data.id="folder:/a\\0b"', "text with a control character"),
        ('data.id="\\ud800"', "text with a control character"),
        ('data.id="\\UFFFFFFFF"', "not YAML"),
        ("profile=%YAML " + "9" * 5_000, "not YAML"),
        ("a." * 3_000 + "b=1", "must be KEY=VALUE"),
        ("a" * 60_000 + "=1", "unknown key"),
        ("profile=" + "x" * 60_000, "more than 50,000 characters"),
    ],
)
def test_hostile_text_is_refused_at_once_in_one_short_line(
    shapes_yaml: Path, override: str, expected: str, message: Callable[..., str]
) -> None:
    started = time.process_time()
    said = message(shapes_yaml, override)
    assert expected in said and len(said) <= MAX_LINE and said.isprintable()
    assert time.process_time() - started < 5


def test_a_date_is_text(shapes_yaml: Path) -> None:
    assert load_config(shapes_yaml, ["profile=2026-13-45"]).profile == "2026-13-45"
    assert load_config(shapes_yaml, ["profile=2026-01-02"]).profile == "2026-01-02"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, message: Callable[..., str]) -> None:
    assert message(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: No such file or directory"
    assert message(tmp_path) == f"{tmp_path}: Is a directory"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01\x02")
    assert message(binary).startswith(f"{binary}: not YAML")


def test_every_valid_key_is_listed_with_its_branch() -> None:
    keys = set(key_paths())
    assert {"profile", "data.id", "diffusion", "diffusion.unet", "diffusion.unet.arch"} <= keys
    assert not any(key.startswith("unet") for key in keys)
