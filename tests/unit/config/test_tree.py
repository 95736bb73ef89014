from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdviz.bundle import Defaults
from sdviz.config.reading import load_config
from sdviz.config.tree import DefaultsConfig, RunConfig
from sdviz.diffusion.samplers import SAMPLERS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["labels.source=scan"], "--set labels: source scan needs n_clusters"),
        (["labels.source=kmeans", "encoder={}"], "--set labels: source kmeans needs n_clusters"),
        (["labels.source=file"], "--set labels: path goes with source file, and only with it"),
        (["labels.path=labels.csv"], "--set labels: path goes with source file, and only with it"),
        (
            ["labels={source: scan, n_clusters: 3}"],
            "mine.yaml: labels.source scan needs an encoder: add encoder: {}",
        ),
        (
            ["labels={source: kmeans, n_clusters: 3}", "encoder=null"],
            "mine.yaml: labels.source kmeans needs an encoder: add encoder: {}",
        ),
        (["detector={}"], "mine.yaml: detector needs an encoder: add encoder: {}"),
        (
            ["encoder={}", "labels={source: kmeans, n_clusters: 3}", "evaluation.tuning={criterion: left_out}"],
            "mine.yaml: evaluation.tuning: criterion left_out needs 4 clusters, not 3",
        ),
        (["encoder={}", "detector.batch_size=7"], "--set detector: batch_size 7 has no halves"),
        (
            ["evaluation.near=[digits]", "evaluation.far=[digits]"],
            "--set evaluation: digits has two roles among near, far and validation",
        ),
        (["evaluation.near=[a, a]"], "--set evaluation: a has two roles among near, far and validation"),
        (
            ["evaluation.validation=[shapes]"],
            "mine.yaml: evaluation: shapes is what the run trains on, not OOD",
        ),
        (
            ["diffusion.max_train_timestep=400", "outliers.start_timestep=401"],
            "mine.yaml: outliers.start_timestep 401 is above 400, the last timestep that diffusion trains",
        ),
        (
            ["views.area=[0.9, 0.1]"],
            "--set views: area [0.9, 0.1] is not [low, high] with 0 < low <= high <= 4",
        ),
        (["detector={views: {area: [0, 1]}}", "encoder={}"], "--set detector.views: area [0.0, 1.0] is not"),
        (
            ["labels={source: scan, n_clusters: 1}"],
            "--set labels.n_clusters: must be greater than or equal to 2",
        ),
        (["encoder.pretraining.split=train"], "mine.yaml: encoder.pretraining.data: is missing"),
        (
            ["evaluation.controls=[nothing]"],
            "--set evaluation.controls.0: must be 'no_training', 'no_outliers'",
        ),
        (["evaluation.near=digits"], '--set evaluation.near: expected a list, got "digits"'),
        (
            ["evaluation.near=['shapes:train']"],
            "mine.yaml: evaluation: shapes:train is what the run trains on, not OOD",
        ),
        (
            ["data.id=folder:pets", "evaluation.far=['folder:./cats/../pets/']"],
            "evaluation: folder:./cats/../pets/ is what the run trains on, not OOD",
        ),
        (
            ["evaluation.near=['folder:pets']", "evaluation.validation=['folder:pets/']"],
            "--set evaluation: folder:pets has two roles among near, far and validation",
        ),
        (["evaluation.controls=[noise, right_label, noise]"], "--set evaluation: controls names noise twice"),
        (["evaluation.interpolation=[0, 0.5, 0.5]"], "--set evaluation: interpolation names 0.5 twice"),
        (["evaluation.interpolation=[0, 1.5]"], "--set evaluation.interpolation.1: must be less than or equal"),
        (["encoder={}", "detector.jpeg_both_sides=true"], "detector.jpeg_both_sides needs outliers.jpeg"),
        (["detector={batch_size: 2, bin_loss: neighbours}"], "batch_size 2: bin_loss neighbours needs"),
        (
            ["outliers.guidance_interval=[2, 1]"],
            "--set outliers: guidance_interval [2.0, 1.0] is not [low, high] with 0 <= low <= high",
        ),
        (["outliers.guidance_interval=[-1, 1]"], "--set outliers: guidance_interval [-1.0, 1.0] is not"),
        (
            ["encoder.pretraining={data: digits, labels: [5, 3]}"],
            "--set encoder.pretraining: labels [5, 3] is not [first, last] with 0 <= first <= last",
        ),
        (["encoder.pretraining={data: digits, labels: [-1, 3]}"], "--set encoder.pretraining: labels [-1, 3]"),
        (
            ["encoder.arch=resnet50"],
            '--set encoder.arch: must be small, resnet18 or timm:NAME, got "resnet50"',
        ),
        (["encoder.arch='timm:'"], '--set encoder.arch: must be small, resnet18 or timm:NAME, got "timm:"'),
        (["outliers.jpeg.quality=0"], "--set outliers.jpeg.quality: must be greater than or equal to 1, got 0"),
    ],
)
def test_parts_that_do_not_fit_are_named_with_their_key(
    tmp_path: Path, overrides: list[str], expected: str, message: Callable[..., str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {id: shapes}\ndefaults: {start_timestep: 10}\n")
    assert expected in message(path, *overrides)


@pytest.mark.parametrize(
    "branch", ["", "encoder.", "labels.", "diffusion.", "outliers.", "detector.", "evaluation."]
)
@pytest.mark.parametrize(
    ("seed", "range_"), [(-1, "greater than or equal to 0"), (2**31, "less than 2147483648")]
)
def test_every_seed_has_the_same_range(
    tmp_path: Path, branch: str, seed: int, range_: str, message: Callable[..., str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {id: shapes}\nencoder: {}\ndetector: {}\n")
    assert message(path, f"{branch}seed={seed}") == f"--set {branch}seed: must be {range_}, got {seed}"
    load_config(path, [f"{branch}seed={2**31 - 1}"])


def test_other_splits_of_an_ood_set_and_folders_with_a_colon_are_other_sets(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {id: 'folder:a'}\n")
    load_config(path, ["evaluation={near: ['cifar100:test', 'folder:a:b'], validation: ['cifar100:train']}"])


METHODS = "dn2, {method: mscl, epochs: 20}, {method: knn, network: encoder}, {method: rot, batch_size: null}"


def test_methods_are_names_or_names_with_settings(shapes_yaml: Path) -> None:
    config = load_config(shapes_yaml, [f"evaluation.baselines=[{METHODS}]"])
    found = [one.model_dump() for one in config.evaluation.baselines]
    assert found[0] == {"method": "dn2", "network": "backbone", "k": 2, "normalize": False}
    assert found[1]["epochs"] == 20 and found[1]["temperature"] == 0.25
    assert [one.key for one in config.evaluation.baselines] == ["dn2", "mscl", "knn@encoder", "rot"]
    # null is the method's own default
    assert found[3]["batch_size"] == 32


def test_a_method_as_its_authors_have_it_and_at_another_length_are_two_rows(shapes_yaml: Path) -> None:
    methods = "dn2, {method: dn2, normalize: true, network: encoder}, knn, {method: knn, normalize: false}"
    config = load_config(shapes_yaml, [f"evaluation.baselines=[{methods}]"])
    assert {one.key: one.title for one in config.evaluation.baselines} == {
        "dn2": "DN2",
        "dn2+unit@encoder": "DN2, unit length, on the encoder",
        "knn": "kNN",
        "knn+raw": "kNN, raw",
    }


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        ("[knnn]", ".0.method: must be 'input_complexity', 'png_size', 'dn2',"),
        ("[dn2, {method: 3}]", ".1.method: must be "),
        ("[{k: 3}]", ".0.method: is missing"),
        ("[3]", ".0: expected keys beneath it, got 3"),
        ("dn2", ': expected a list, got "dn2"'),
        ("[{method: msp, k: 3}]", ".0: msp has no k"),
        ("[{method: knn, generator_steps: 3}]", ".0: knn has no generator_steps"),
        ("[{method: dn2, kk: 3}]", ".0.kk: unknown key; the nearest is evaluation.baselines.0.k"),
        (
            "[dn2, {method: mscl, epoch: 3}]",
            ".1.epoch: unknown key; the nearest is evaluation.baselines.1.ep",
        ),
        ("[{method: mscl, epochs: 0}]", ".0.epochs: must be greater than 0, got 0"),
        ("[{method: rot, epochs: '3'}]", '.0.epochs: expected a number, got "3"'),
        ("[{method: dn2, k: x}]", '.0.k: expected a whole number, got "x"'),
        ("[{method: dn2, network: cnn}]", ".0.network: must be 'backbone' or 'encoder', got \"cnn\""),
    ],
)
def test_a_wrong_method_is_named_with_its_place(
    shapes_yaml: Path, methods: str, expected: str, message: Callable[..., str]
) -> None:
    found = message(shapes_yaml, f"evaluation.baselines={methods}")
    assert found.startswith(f"--set evaluation.baselines{expected}")


def test_combinations_that_cannot_be_are_refused(shapes_yaml: Path, message: Callable[..., str]) -> None:
    assert "max_train_timestep 2000 is above num_train_timesteps 1000" in message(
        shapes_yaml, "diffusion.max_train_timestep=2000"
    )
    assert "defaults.start_timestep 401 is above 400" in message(
        shapes_yaml, "diffusion.max_train_timestep=400", "defaults.start_timestep=401"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configurations_are_valid(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)


def test_the_configuration_knows_the_solvers_and_defaults_of_a_bundle() -> None:
    assert set(Defaults.model_fields) == set(DefaultsConfig.model_fields)
    for solver in SAMPLERS:
        DefaultsConfig.model_validate({"solver": solver})
    assert DefaultsConfig.model_json_schema()["properties"]["solver"]["enum"] == list(SAMPLERS)


def test_range_and_fit_say_how_pictures_are_read(tmp_path: Path, message: Callable[..., str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {id: 'folder:scans', range: 0..4095, fit: pad, size_px: 64}\n")
    assert load_config(path).data.reading == {"size_px": 64, "value_range": "0..4095", "fit": "pad"}
    plain = load_config(path, ["data.range=auto", "data.fit=crop"]).data
    assert (plain.range, plain.fit) == ("auto", "crop")
    assert "data.range" in message(path, "data.range=4095") and "LOW..HIGH" in message(path, "data.range=1..0")
    assert "data.fit" in message(path, "data.fit=fill")
