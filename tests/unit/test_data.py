from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdviz import data


@pytest.fixture
def add(data_root: Path) -> Callable[[str], None]:
    """Puts a Parquet file of two pictures under the data root."""

    def write(file: str) -> None:
        cells = []
        for i in range(2):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (i, 0, 0)).save(stream, "PNG")
            cells.append({"bytes": stream.getvalue(), "path": ""})
        pq.write_table(pa.table({"img": cells, "label": [0, 1]}), data_root / file)

    return write


def test_names_and_splits(data_root: Path, add: Callable[[str], None]) -> None:
    ours = {"shapes", "shapes-novel", "shapes-novel-val", "shapes-empty", "digits"}
    assert data.names() == data.BUILT_IN and ours <= set(data.BUILT_IN)
    for file in ("intel_scenes.parquet", "tiny_val.parquet", "tiny_train.parquet", "cifar10_test.parquet"):
        add(file)
    add("shapes_train.parquet")  # a built-in name wins
    pq.write_table(pa.table({"score": [1.0]}), data_root / "scores.parquet")
    (data_root / "broken.parquet").write_bytes(b"text")
    assert data.names() == (*data.BUILT_IN, "cifar10", "intel_scenes", "tiny")
    assert data.splits("intel_scenes") == ("all",)
    assert data.splits("tiny") == ("train", "val")
    assert data.splits("cifar10") == ("test",)
    assert data.splits("shapes") == ("train", "test") and data.splits("digits") == ("test",)
    for name in data.names():
        for split in data.splits(name):
            assert data.load(name, split, limit=1).ids[0].startswith(f"{name}/{split}/")


@pytest.mark.usefixtures("data_root")
def test_the_split_that_none_takes(add: Callable[[str], None]) -> None:
    for file in ("one_val.parquet", "two_val.parquet", "two_train.parquet", "three_a.parquet"):
        add(file)
    assert data.load("one").split == "val"
    assert data.load("two").split == "train"
    assert data.load("three_a").split == "all"
    assert data.load("shapes", limit=1).split == "train"
    assert data.load("shapes-novel-val", limit=1).split == "val"
    add("four_val.parquet")
    add("four_test.parquet")
    with pytest.raises(data.DataError, match="four has the splits val, test: name one"):
        data.load("four")


@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("shapes", "val", "shapes has only the splits train, test, not 'val'"),
        ("shapes-novel", "train", "shapes-novel has only the split test, not 'train'"),
        ("digits", "train", "digits has only the split test, not 'train'"),
    ],
)
def test_a_split_that_is_not_there(name: str, split: str, message: str) -> None:
    with pytest.raises(data.DataError) as caught:
        data.load(name, split)
    assert str(caught.value) == message


def test_missing_sets_say_how_to_get_them(data_root: Path, add: Callable[[str], None]) -> None:
    with pytest.raises(data.MissingDataError) as caught:
        data.load("cifar10", "test")
    assert str(caught.value) == (
        "cifar10 is not on this machine: run `python -m sdviz download cifar10`, or put"
        f" cifar10_test.parquet in {data_root}, or set SDVIZ_DATA to the folder that has it"
    )
    add("cifar10_test.parquet")
    with pytest.raises(
        data.MissingDataError, match="only the split test here: run .* cifar10_train.parquet in"
    ):
        data.load("cifar10", "train")
    with pytest.raises(data.DataError, match="only the split test, not 'vla'"):
        data.load("cifar10", "vla")


def test_unknown_names_list_the_nearest(data_root: Path, add: Callable[[str], None]) -> None:
    add("places.parquet")
    for typo, near in [("shape", "shapes"), ("place", "places"), ("cifar", "cifar10"), ("qqqq", "svhn")]:
        with pytest.raises(data.MissingDataError) as caught:
            data.load(typo)
        message = str(caught.value)
        assert message.startswith(f"no data set '{typo}'; nearest: ") and near in message.split(";")[1]
        assert f"{typo}.parquet in {data_root}" in message and "\n" not in message


@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"limit": -3}, "limit must be at least 1, not -3"),
        ({"size_px": 0}, "size_px must be at least 1"),
        ({"on_error": "ignore"}, 'on_error must be "raise" or "skip"'),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(data.DataError, match=message):
        data.load("shapes", **options)


@pytest.mark.parametrize("name", ["shapes", "digits"])
def test_drawn_sets_come_in_any_size_and_are_found_in_it(name: str) -> None:
    small, large = (data.load(name, "test", limit=3, size_px=px) for px in (32, 64))
    assert large.images.shape == (3, 64, 64, 3) and large.ids.tolist() == small.ids.tolist()
    # the same pictures: their means over 2x2 pixels are close
    halved = large.images.reshape(3, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(halved - small.images).mean() < 3
    found = data.look_up(large.ids[::-1], size_px=64)
    assert found.found.all() and np.array_equal(found.images[::-1], large.images)


@pytest.mark.parametrize("name", ["folder:", "parquet:"])
def test_a_path_is_needed(name: str) -> None:
    with pytest.raises(data.DataError, match="needs a path"):
        data.load(name)


def test_the_root_is_read_at_call_time(
    data_root: Path, tmp_path: Path, add: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("here.parquet")
    assert "here" in data.names()
    monkeypatch.setenv("SDVIZ_DATA", str(tmp_path / "nowhere"))
    assert data.names() == data.BUILT_IN
    monkeypatch.delenv("SDVIZ_DATA")
    monkeypatch.chdir(tmp_path)
    data_root.rename(tmp_path / "data")
    assert data.data_root() == Path("data") and "here" in data.names()


def test_parse_source() -> None:
    assert data.parse_source("shapes:test") == ("shapes", "test")
    assert data.parse_source("shapes") == ("shapes", None)
    assert data.parse_source("folder:C:/pets") == ("folder:C:/pets", None)
    assert data.parse_source("parquet:a_test.parquet") == ("parquet:a_test.parquet", None)


def test_importing_it_brings_in_no_heavy_library() -> None:
    code = (
        "import sys, sdviz.data; print(sorted({'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def need(name: str, split: str) -> None:
    if name not in data.names() or split not in data.splits(name):
        pytest.skip(f"{name} {split} is not under {data.data_root()}")


@pytest.mark.usefixtures("sdviz_data")
def test_cifar10_test() -> None:
    need("cifar10", "test")
    test = data.load("cifar10", "test")
    assert test.images.shape == (10_000, 32, 32, 3) and np.bincount(test.labels).tolist() == [1000] * 10
    assert test.class_names[3] == "cat" and len(test.class_names) == 10
    assert len(set(test.ids.tolist())) == 10_000 and test.ids[0].startswith("cifar10/test/")
    assert 100 < test.images.mean() < 140 and test.images.std() > 50

    rows = data.permutation(10_000, 3)[:64]
    some = data.load("cifar10", "test", limit=64, seed=3)
    assert some.ids.tolist() == test.ids[rows].tolist() and np.array_equal(some.images, test.images[rows])
    assert np.array_equal(some.labels, test.labels[rows])
    again = data.load("cifar10", "test", limit=16, seed=3)
    assert again.ids.tolist() == some.ids[:16].tolist() and np.array_equal(again.images, some.images[:16])


@pytest.mark.usefixtures("sdviz_data")
def test_every_set_that_is_there_opens() -> None:
    found = [name for name in data.names() if name not in data.BUILT_IN]
    if not found:
        pytest.skip(f"no image sets under {data.data_root()}")
    for name in found:
        for split in data.splits(name):
            some = data.load(name, split, limit=20)
            assert len(some) == 20 and some.images.shape[1:] == (32, 32, 3)
            assert some.labels.max() < len(some.class_names)
