from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdviz.bundle import Bundle
from sdviz.config.reading import load_config
from sdviz.pipeline import Workspace, run_stages
from sdviz.pipeline import bundle as bundling
from tests.tiny_runs import write_tiny_config, write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def write_split(root: Path, split: str, paths: list[str], labels: list[int], name: str = "cifar10") -> None:
    rng = np.random.default_rng(len(paths))
    rows = []
    for path in paths:
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(stream, "PNG")
        rows.append({"bytes": stream.getvalue(), "path": path})
    table = pa.table({"img": rows, "label": labels}).replace_schema_metadata({"class_names": '["cat", "dog"]'})
    pq.write_table(table, root / f"{name}_{split}.parquet")


def bundle_of(folder: Path, name: str) -> Bundle:
    path = write_tiny_config(folder)
    small = [f"data.id={name}", "clusterer.total_steps=2", "diffusion.total_steps=2", "diffusion.batch_size=2"]
    work = Workspace(folder / "run", load_config(path, small), lambda progress: None, lambda: False)
    work.folder.mkdir()
    assert run_stages(work)
    return Bundle.load(work.folder / "bundle", "cpu")


def test_a_shuffled_files_order_goes_into_the_bundle(tmp_path: Path, data_root: Path) -> None:
    write_split(
        data_root, "train", ["train/cat/0001.jpg", "train/dog/0000.jpg", "train/cat/0000.jpg"], [0, 1, 0]
    )
    write_split(data_root, "test", ["test/dog/0000.jpg", "test/cat/0000.jpg"], [1, 0])
    bundle = bundle_of(tmp_path, "cifar10")
    rows = pq.read_table(bundle.parts["same_images.parquet"]).to_pylist()
    assert rows == [
        {"id": "cifar10/train/00000", "label": 0, "nth": 1},
        {"id": "cifar10/train/00001", "label": 1, "nth": 0},
        {"id": "cifar10/train/00002", "label": 0, "nth": 0},
        {"id": "cifar10/test/00000", "label": 1, "nth": 0},
        {"id": "cifar10/test/00001", "label": 0, "nth": 0},
    ]
    assert {row["id"] for row in rows} >= set(
        pq.read_table(bundle.parts["pseudo_labels.parquet"])["id"].to_pylist()
    )


@pytest.mark.parametrize(("name", "paths"), [("cifar10", "{}/a{}.jpg"), ("pets", "{}/{:04d}.jpg")])
def test_without_an_order_of_torchvisions_there_is_no_such_part(
    name: str, paths: str, tmp_path: Path, data_root: Path
) -> None:
    for split in ("train", "test"):
        write_split(data_root, split, [paths.format(split, i) for i in range(4)], [0, 1, 0, 1], name)
    assert "same_images.parquet" not in bundle_of(tmp_path, name).parts


def test_weights_in_float16_halve_the_files_and_hardly_move_a_feature(
    compared_pair: tuple[Bundle, Bundle],
) -> None:
    whole, half = compared_pair
    assert whole.path is not None and half.path is not None
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
    for name in ("clusterer", "encoder", "detector"):
        sizes = [(one.path / f"{name}.safetensors").stat().st_size for one in (whole, half) if one.path]
        assert sizes[1] < 0.75 * sizes[0]
    a, b = whole.features(images), half.features(images)
    assert 0 < np.abs(a - b).max() < 5e-3 * np.abs(a).max()
    # a copy of it is it, to the last bit
    again = half.save(half.path.parent / "again")
    assert (half.path / "detector.safetensors").read_bytes() == (
        half.path.parent / "again" / "detector.safetensors"
    ).read_bytes()
    np.testing.assert_array_equal(again.features(images), b)


@pytest.fixture
def compared_pair(tmp_path: Path) -> tuple[Bundle, Bundle]:
    """One tiny run's bundle, its weights in float32 and in float16."""
    # with labels that are given, because so short a SCAN may leave a cluster empty
    path = write_tiny_detector_config(tmp_path, steps=4, epochs=1)
    made = []
    for kind in ("float32", "float16"):
        settings = [f"bundle.weights={kind}", "encoder.width=16", "labels={source: ground_truth}"]
        config = load_config(path, settings)
        work = Workspace(tmp_path / kind, config, lambda progress: None, lambda: False)
        work.folder.mkdir()
        assert run_stages(work)
        made.append(Bundle.load(work.folder / "bundle", "cpu"))
    return made[0], made[1]


CLASSES = ("cat", "dog", "ship")


def named(
    monkeypatch: pytest.MonkeyPatch, of_cluster: list[list[int]], source: str = "scan"
) -> tuple[str, ...]:
    """The names of clusters with so many images of each class."""
    classes = [y for counts in of_cluster for y, n in enumerate(counts) for _ in range(n)]
    labels = [c for c, counts in enumerate(of_cluster) for _ in range(sum(counts))]
    numbers = tuple(f"cluster {c}" for c in range(len(of_cluster)))
    monkeypatch.setattr(bundling, "read_cluster_names", lambda work: numbers)
    monkeypatch.setattr(bundling, "read_labels", lambda work: np.array(labels))
    images = SimpleNamespace(labels=np.array(classes), class_names=CLASSES)
    config = SimpleNamespace(labels=SimpleNamespace(source=source))
    work: Any = SimpleNamespace(images=images, config=config)
    return bundling.display_names(cast(Workspace, work))


def test_a_name_claims_no_more_of_a_class_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = [[90, 10, 0], [40, 60, 0], [30, 20, 50], [29, 40, 31], [50, 0, 50], [25, 40, 35], [32, 40, 28]]
    assert named(monkeypatch, clusters) == (
        "cat",
        "cluster 1, mostly dog",
        "cluster 2, often ship",
        "cluster 3, often dog",
        "cluster 4, often cat and ship",
        "cluster 5, often dog and ship",
        "cluster 6, often dog and cat",  # four fifths of the first are close
    )


def test_two_clusters_of_one_class_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, [[9, 0, 0], [9, 0, 0]]) == ("cluster 0, cat", "cluster 1, cat")


def test_given_labels_have_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, [[9, 0, 0], [0, 9, 0]], "ground_truth") == ("cluster 0", "cluster 1")
