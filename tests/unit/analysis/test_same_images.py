from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision import datasets

from sdviz import data
from sdviz.analysis import Evidence, PictureLibrary
from sdviz.analysis.same_images import SAME_IMAGES, find_images
from sdviz.bundle import Bundle, BundleError
from sdviz.data.decode import through_jpeg
from sdviz.data.sources.parquet import same_images_table
from tests.tiny_bundle import save_tiny_bundle, with_parts

CLASSES = ("plane", "car", "bird")


def files_of_torchvision(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10's own files with six images each, and torchvision told to expect just these."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for i, name in enumerate(names):
        rng = np.random.default_rng(i)
        pixels, labels = rng.integers(0, 256, (6, 3072), np.uint8), rng.integers(0, 3, 6).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, None] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[5], None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})


def shuffled_file(path: Path, original: data.ImageSet) -> np.ndarray:
    """The same images as rows of a Parquet file; returns each row's place in the original order."""
    order, seen, rows = np.random.default_rng(7).permutation(len(original)), dict[int, int](), []
    nth = []
    for label in original.labels.tolist():
        nth.append(seen.get(label, 0))
        seen[label] = nth[-1] + 1
    for row in order.tolist():
        stream = io.BytesIO()
        Image.fromarray(original.images[row]).save(stream, "PNG")
        where = f"{original.split}/{CLASSES[original.labels[row]]}/{nth[row]:04d}.png"
        rows.append({"bytes": stream.getvalue(), "path": where})
    pq.write_table(pa.table({"img": rows, "label": original.labels[order]}), path)
    return order


@pytest.fixture
def bundle_of_rows(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Bundle, data.ImageSet, np.ndarray]]:
    """A bundle made from a shuffled file that is not here any more, where torchvision's files are."""

    def make(know: bool = True) -> tuple[Bundle, data.ImageSet, np.ndarray]:
        files_of_torchvision(data_root, monkeypatch)
        original = data.load("cifar10", "train")
        order = shuffled_file(tmp_path / "rows.parquet", original)
        folder = save_tiny_bundle(tmp_path / "b", dataset="cifar10")
        if know:
            table = same_images_table(tmp_path / "rows.parquet", "cifar10", "train")
            pq.write_table(table, tmp_path / SAME_IMAGES)
            whole = Bundle.load(folder, "cpu")
            with_parts(whole, {**whole.parts, SAME_IMAGES: tmp_path / SAME_IMAGES}).save(tmp_path / "known")
            folder = tmp_path / "known"
        return Bundle.load(folder, "cpu"), original, order

    return make


def test_each_id_finds_its_image_in_torchvisions_order(
    bundle_of_rows: Callable[..., tuple[Bundle, data.ImageSet, np.ndarray]],
) -> None:
    bundle, original, order = bundle_of_rows()
    ids = [f"cifar10/train/{row:05d}" for row in (3, 0, 17, 3, 29)]
    found = find_images(bundle, [*ids, "cifar10/train/00030", "cifar10/test/00001"])
    assert found.found.tolist() == [True] * 5 + [False] * 2
    assert np.array_equal(found.images[:5], original.images[order[[3, 0, 17, 3, 29]]])
    assert found.class_names[:5].tolist() == [CLASSES[original.labels[order[row]]] for row in (3, 0, 17, 3, 29)]
    bare = find_images(bundle, ids, pictures=False)
    assert bare.found.all() and bare.class_names.tolist() == found.class_names[:5].tolist()
    assert not bare.missing and bare.images.shape == (5, 0, 0, 3)
    shown = PictureLibrary(Evidence(bundle)).show(ids)
    assert np.array_equal(shown.images, found.images[:5]) and shown.missing == shown.ways == ()


def test_images_go_through_the_jpeg_that_outliers_went_through(
    bundle_of_rows: Callable[..., tuple[Bundle, data.ImageSet, np.ndarray]],
) -> None:
    bundle, original, order = bundle_of_rows()
    config = {"outliers": {"jpeg": {"quality": 50, "subsampling": "4:2:0"}}}
    bundle.manifest = bundle.manifest.model_copy(update={"config": config})
    found = find_images(bundle, ["cifar10/train/00004"])
    assert np.array_equal(found.images, through_jpeg(original.images[order[[4]]], 50, "4:2:0"))


def test_a_bundle_that_does_not_know_the_order_says_what_it_wants(
    bundle_of_rows: Callable[..., tuple[Bundle, data.ImageSet, np.ndarray]],
) -> None:
    bundle, _, _ = bundle_of_rows(know=False)
    shown = PictureLibrary(Evidence(bundle)).show(["cifar10/train/00004"])
    assert not shown.found.any()
    assert "on this machine have other ids: the bundle's are from `cifar10_train.parquet`" in shown.ways[0].text


def test_paths_of_another_form_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [{"bytes": b"", "path": "x/y.png"}], "label": [0]}), tmp_path / "f.parquet")
    with pytest.raises(data.DataError, match="does not end in its place"):
        same_images_table(tmp_path / "f.parquet", "cifar10", "train")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: pa.concat_tables([t, t.slice(0, 1)]),
        lambda t: t.drop_columns(["nth"]),
        lambda t: t.set_column(1, "label", pa.array(["x"] * len(t))),
    ],
)
def test_a_table_that_tells_no_places_is_refused(
    bundle_of_rows: Callable[..., tuple[Bundle, data.ImageSet, np.ndarray]],
    change: Callable[[pa.Table], pa.Table],
) -> None:
    bundle, _, _ = bundle_of_rows()
    file = bundle.parts[SAME_IMAGES]
    pq.write_table(change(pq.read_table(file)), file)
    bundle.hash = "another"  # places are kept by it
    with pytest.raises(BundleError, match=r"same_images\.parquet cannot be read: "):
        find_images(bundle, ["cifar10/train/00003"])
