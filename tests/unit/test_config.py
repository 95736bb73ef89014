from __future__ import annotations

from pathlib import Path

import pytest

from sdviz.bundle import Defaults
from sdviz.config import (
    ConfigError,
    DefaultsConfig,
    DiffusionConfig,
    RunConfig,
    UNetConfig,
    key_paths,
    load_config,
    to_yaml,
)
from sdviz.diffusion.samplers import SAMPLERS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shapes_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {id: shapes}\n"
        "diffusion:\n"
        "  learning_rate: 8e-4\n"
        "  max_grad_norm: 3\n"
        "  unet: {channels: [8, 16]}\n"
    )
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


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
        ("defaults.solver=euler", "--set defaults.solver: must be 'ddpm', 'ddim' or 'dpmpp_2m'"),
    ],
)
def test_a_wrong_override_is_named_with_its_path(shapes_yaml: Path, override: str, expected: str) -> None:
    assert message(shapes_yaml, override).startswith(expected)


def test_combinations_that_cannot_be_are_refused(shapes_yaml: Path) -> None:
    assert "max_train_timestep 2000 is above num_train_timesteps 1000" in message(
        shapes_yaml, "diffusion.max_train_timestep=2000"
    )
    assert "defaults.start_timestep 401 is above 400" in message(
        shapes_yaml, "diffusion.max_train_timestep=400", "defaults.start_timestep=401"
    )


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
        ("data: &a {id: *a}\n", "not a plain tree of keys"),
        ("data: {id: shapes}\n1: 2\n", "1: unknown key"),
    ],
)
def test_a_wrong_file_is_named_with_the_reason(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert message(path).startswith(f"{path}: {expected}")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert message(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: No such file or directory"
    assert message(tmp_path) == f"{tmp_path}: Is a directory"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01\x02")
    assert message(binary).startswith(f"{binary}: not YAML")


def test_every_valid_key_is_listed_with_its_branch() -> None:
    keys = set(key_paths())
    assert {"profile", "data.id", "diffusion", "diffusion.unet", "diffusion.unet.arch"} <= keys
    assert not any(key.startswith("unet") for key in keys)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configurations_are_valid(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)


def test_the_configuration_knows_the_solvers_and_defaults_of_a_bundle() -> None:
    assert set(Defaults.model_fields) == set(DefaultsConfig.model_fields)
    for solver in SAMPLERS:
        DefaultsConfig.model_validate({"solver": solver})
    assert DefaultsConfig.model_json_schema()["properties"]["solver"]["enum"] == list(SAMPLERS)
