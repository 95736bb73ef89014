"""What checkpoints/cifar10 must be: ours, small, without a picture of CIFAR-10 in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from sdviz import data
from sdviz.bundle import Bundle

FOLDER = Path(__file__).resolve().parents[2] / "checkpoints" / "cifar10"
MB = 1_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(FOLDER, "cpu")


def files() -> Iterator[Path]:
    return (path for path in FOLDER.rglob("*") if path.is_file())


def test_it_is_small() -> None:
    sizes = [path.stat().st_size for path in files()]
    assert sum(sizes) <= 120 * MB
    assert max(sizes) <= 50 * MB


def test_weights_and_features_are_float16() -> None:
    for path in FOLDER.rglob("*.safetensors"):
        with safe_open(path, "np") as file:
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                tensor = file.get_tensor(key)
                is_head = ".g_" in key
                small = tensor.size < 2_000
                assert tensor.dtype != np.float32 or is_head or small, (path.name, key)


def test_the_banks_are_large_and_even(bundle: Bundle) -> None:
    banks = bundle.banks()
    assert len(banks.id_features) >= 10_000
    assert len(banks.outlier_features) == len(banks.id_features)
    report = load_file(FOLDER / "features.safetensors")
    assert set(report["outlier_labels"].tolist()) == set(range(bundle.manifest.n_clusters))


def test_there_is_no_picture_in_it(bundle: Bundle) -> None:
    table = pq.read_table(bundle.parts["outliers.parquet"])
    assert table["png"].null_count == table.num_rows
    for path in files():
        start = path.read_bytes()[:8]
        assert not start.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"RIFF")), path
        assert path.suffix in {".json", ".parquet", ".safetensors"}, path
    for path in FOLDER.rglob("*.parquet"):
        for field in pq.read_schema(path):
            assert field.name == "png" or "binary" not in str(field.type), (path.name, field.name)


def test_every_outlier_can_be_made_again_from_its_recipe(bundle: Bundle) -> None:
    table = pq.read_table(bundle.parts["outliers.parquet"])
    assert table["source_id"].to_pylist() == bundle.banks().id_ids.tolist()
    for name in ("start_timestep", "guidance_scale", "num_inference_steps", "solver", "seed", "target_label"):
        assert table[name].null_count == 0
    assert (table["label"].to_numpy() != table["target_label"].to_numpy()).all()
    places = pq.read_table(bundle.parts["same_images.parquet"])
    known = set(places["id"].to_pylist())
    assert known >= set(table["source_id"].to_pylist())


def test_it_was_made_by_the_configuration_that_it_names(bundle: Bundle) -> None:
    from sdviz.config.reading import load_config
    from sdviz.pipeline import config_hash

    named = {"cpu": "cifar10-cpu.yaml", "gpu": "cifar10.yaml"}
    config = bundle.manifest.config or {}
    file = FOLDER.parents[1] / "configs" / named[config["profile"]]
    today = load_config(file)
    own = type(today).model_validate_json(json.dumps(config))
    for stage in ("encoder", "pseudo_labels", "diffusion", "outliers", "backbone", "detector"):
        assert config_hash(own, stage) == config_hash(today, stage), stage


@pytest.mark.skipif("cifar10" not in data.names(), reason="needs CIFAR-10 under SDVIZ_DATA")
def test_it_makes_outliers_of_real_images_and_the_same_ones_as_its_bank(bundle: Bundle) -> None:
    table = pq.read_table(bundle.parts["outliers.parquet"]).slice(0, 4)
    found = data.look_up(table["source_id"].to_pylist())
    if not found.found.all():
        pytest.skip("the CIFAR-10 here has other ids than the file that the bundle was made from")
    row = table.to_pylist()[0]
    batch = bundle.generate(
        found.images,
        labels=table["label"].to_numpy(),
        target_labels=table["target_label"].to_numpy(),
        ids=table["source_id"].to_pylist(),
        start_timestep=row["start_timestep"],
        guidance_scale=row["guidance_scale"],
        num_inference_steps=row["num_inference_steps"],
        solver=row["solver"],
        seed=row["seed"],
    )
    made = bundle.features(batch.outliers)
    kept = bundle.banks().outlier_features[:4]
    away = np.linalg.norm(made - kept, axis=1) / np.linalg.norm(kept, axis=1)
    others = np.linalg.norm(made - kept[::-1], axis=1) / np.linalg.norm(kept, axis=1)
    assert (away < others).all()


@pytest.mark.skipif("cifar10" not in data.names(), reason="needs CIFAR-10 under SDVIZ_DATA")
def test_no_grid_is_left_in_its_outliers(bundle: Bundle) -> None:
    images = data.load("cifar10", "test", limit=64)
    assert bundle.manifest.phases is not None
    made = bundle.generate(images.images, ids=images.ids, num_inference_steps=5).outliers
    plain = Bundle.load(FOLDER, "cpu")
    plain.noise_predictor.phases = None
    with_grid = plain.generate(images.images, ids=images.ids, num_inference_steps=5).outliers

    def checkers(pictures: np.ndarray) -> float:
        """The amplitude of black-and-white squares of one pixel each over the whole picture."""
        spectrum = np.fft.fft2(pictures.astype(np.float64).mean(3))
        return float((np.abs(spectrum[:, 16, 16]) ** 2).mean()) ** 0.5

    there = checkers(images.images)
    assert checkers(made) < 1.5 * there
    assert checkers(with_grid) > 4 * there
