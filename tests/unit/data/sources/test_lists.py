from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdviz import data
from sdviz.data.sources import sources_of
from sdviz.table_files import csv_text

Encode = Callable[..., bytes]


@pytest.fixture
def listed(tmp_path: Path, encode: Encode) -> Path:
    """A folder with pictures of red 0, 100 and 200 in imgs/, for lists beside it."""
    (tmp_path / "imgs").mkdir()
    for i in range(3):
        (tmp_path / "imgs" / f"{i}.png").write_bytes(encode(Image.new("RGB", (8, 8), (i * 100, 0, 255))))
    return tmp_path


def write(folder: Path, name: str, text: str | bytes) -> str:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"{name.rpartition('.')[2]}:{folder}/{name}"


def test_paths_labels_and_splits(listed: Path) -> None:
    table = "\ufefffile_name,label,split\nimgs/0.png,dog,train\nimgs/2.png,cat,Training\nimgs\\1.png,dog,test\n"
    name = write(listed, "pets.csv", table)
    assert data.splits(name) == ("train", "test") and data.count(name, "train") == 2
    train, test = data.load(name), data.load(f"{name}:test")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.labels.tolist() == [1, 0] and test.labels.tolist() == [1]
    assert train.images[:, 0, 0, 0].tolist() == [0, 200] and test.images[:, 0, 0, 0].tolist() == [100]
    assert train.ids[1].startswith("csv/pets/train/00001@") and train.found.splits == {"train": 2, "test": 1}
    found = data.look_up([*test.ids, train.ids[1]], [name])
    assert found.images[:, 0, 0, 0].tolist() == [100, 200] and found.class_names.tolist() == ["dog", "cat"]
    some = data.load(name, limit=1, seed=1)
    assert some.ids[0] in train.ids


def test_tables_of_spreadsheets_and_of_this_package(listed: Path) -> None:
    table = "file\tlabel\r\nimgs/1.png\tcafé\r\nimgs/0.png\tbar\r\n"
    found = data.load(write(listed, "excel.tsv", table.encode("utf-16")))
    assert found.class_names == ("bar", "café") and found.labels.tolist() == [1, 0]
    ours = csv_text(["path", "label"], [["imgs/0.png", "=1+1"], ["imgs/2.png", "b"]], {"bundle": "x"})
    found = data.load(write(listed, "ours.csv", ours))
    assert found.class_names == ("=1+1", "b") and found.images[:, 0, 0, 0].tolist() == [0, 200]


def test_without_names_of_columns_and_without_suffixes(listed: Path) -> None:
    name = write(listed, "imgs.tsv", "0\t3\n1\t10\n2\t\n")
    found = data.load(name)
    assert found.class_names == ("3", "10") and found.labels.tolist() == [0, 1, -1]
    assert found.images[:, 0, 0, 0].tolist() == [0, 100, 200]
    assert found.found.warnings == (
        "without names of columns: the first is taken for paths, the second for labels",
    )


def test_a_column_is_named(listed: Path) -> None:
    name = write(listed, "l.csv", "Photo;breed\nimgs/1.png;x\n")
    with pytest.raises(data.DataError, match="no column path, .* it has Photo, breed; name one"):
        data.load(name)
    found = data.load(f"{name}?path=Photo&label=breed")
    assert found.class_names == ("x",) and found.images[0, 0, 0, 0] == 100
    assert data.load(f"{name}?path=photo").labels.tolist() == [-1]
    for option, message in (("path=none", "has no column none"), ("colour=x", "no option colour")):
        with pytest.raises(data.DataError, match=message):
            data.load(f"{name}?{option}")


def test_a_picture_that_is_not_there(listed: Path) -> None:
    name = write(listed, "l.csv", "path,label\nimgs/0.png,a\nimgs/9.png,b\n")
    with pytest.raises(data.DataError, match=r"1 of 2 images cannot be used: imgs/9\.png is not there"):
        data.load(name)
    with pytest.warns(UserWarning, match="left out"):
        rest = data.load(name, on_error="skip")
    assert rest.labels.tolist() == [0] and rest.found.unreadable == ("imgs/9.png",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "lists no pictures"),
        ("path,label\nimgs/0.png\n", "a row has fewer columns than the first"),
        (b"\x00\xff,\x00\n", "no column path"),
        ('path\n"' + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_bad_lists_are_one_line(listed: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(write(listed, "l.csv", text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300
    with pytest.raises(data.DataError, match="does not exist"):
        data.load(f"csv:{listed}/none.csv")


def test_only_lists_of_pictures_are_offered(listed: Path) -> None:
    from sdviz.data.sources.lists import SOURCE

    write(listed, "l.csv", "path,label\nimgs/0.png,a\n")
    write(listed, "t.csv", "a,b\n1,2\n")
    assert SOURCE.name_of(listed / "l.csv") == f"csv:{listed}/l.csv"
    assert SOURCE.name_of(listed / "t.csv") is None and SOURCE.name_of(listed / "imgs") is None


def test_the_files_of_images(listed: Path) -> None:
    name = write(listed, "a.csv", "path,split\nimgs/2.png,train\nimgs/0.png,test\nimgs/1,train\n")
    (source,) = sources_of(name)
    for split, files in (("train", ["2.png", "1.png"]), ("test", ["0.png"])):
        ids = data.load(name, split).ids.tolist()
        assert source.paths_of(name, ids) == [listed / "imgs" / file for file in files]
    name = write(listed, "b.csv", "path\nimgs/2.png\nimgs/0.png\n")
    assert source.paths_of(name, data.load(name).ids.tolist()[1:]) == [listed / "imgs" / "0.png"]


def test_a_path_with_escaped_bytes_is_found(listed: Path) -> None:
    (listed / "imgs" / "2.png").rename(listed / "imgs" / os.fsdecode(b"caf\xe9.png"))
    for i, path in enumerate((f"{listed}/imgs/caf%E9.png", "imgs/caf%E9.png")):
        found = data.load(write(listed, f"{i}.csv", f"path\n{path}\nimgs/1.png\n"))
        assert found.images[:, 0, 0, 0].tolist() == [200, 100]
