from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdviz import data


def write_parquet(path: Path, blobs: list[bytes], labels: list[int]) -> None:
    img = pa.array(
        [{"bytes": b, "path": None} for b in blobs], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    table = pa.table({"img": img, "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata({"class_names": json.dumps(["cat", "dog"])}), path)


@pytest.mark.parametrize("name", ["shapes", "shapes-novel", "shapes-empty", "digits"])
def test_finds_the_images_that_load_gave(name: str) -> None:
    some = data.load(name, "test" if name == "shapes" else None, limit=7)
    order = [6, 0, 3, 3]
    found = data.look_up(some.ids[order])
    assert found.found.all() and found.missing == ()
    assert np.array_equal(found.images, some.images[order])
    assert np.array_equal(found.labels, some.labels[order])
    expected = [some.label_name(row) if some.labels[row] >= 0 else "" for row in order]
    assert found.class_names.tolist() == expected


def test_labels_without_pictures_are_the_same() -> None:
    some = data.load("shapes", "train", limit=200)
    found = data.look_up(some.ids, pictures=False)
    assert found.images.shape == (200, 0, 0, 3)
    assert np.array_equal(found.labels, some.labels)


def test_ids_of_several_sets_keep_their_places() -> None:
    ids = ["digits/test/00004", "shapes/test/00001", "digits/test/00002"]
    found = data.look_up(ids)
    for row, one in enumerate(ids):
        assert np.array_equal(found.images[row], data.look_up([one]).images[0])
    assert found.class_names[0] == "4"


@pytest.mark.parametrize(
    "one",
    [
        "shapes/test/99999",
        "shapes/nowhere/00001",
        "absent/test/00001",
        "no id",
        "",
        "shapes/test/-1",
        "digits/test/x",
    ],
)
def test_what_is_not_there_is_grey_and_not_found(one: str) -> None:
    found = data.look_up([one, "shapes/test/00001"])
    assert found.found.tolist() == [False, True]
    assert (found.images[0] == 127).all() and found.labels[0] == -1 and found.class_names[0] == ""


def test_parquet_under_the_root(
    tmp_path: Path, picture: np.ndarray, encode: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDVIZ_DATA", str(tmp_path))
    blobs = [encode(np.roll(picture, i, 0)) for i in range(5)]
    write_parquet(tmp_path / "pets_test.parquet", blobs, [0, 1, 1, 0, 1])
    whole = data.load("pets", "test")
    found = data.look_up(whole.ids[[4, 1]])
    assert np.array_equal(found.images, whole.images[[4, 1]])
    assert found.class_names.tolist() == ["dog", "dog"]
    assert data.look_up(whole.ids[[4, 0]], pictures=False).class_names.tolist() == ["dog", "cat"]


def test_own_parquet_needs_its_source_and_its_content(
    tmp_path: Path, picture: np.ndarray, encode: Callable[..., bytes]
) -> None:
    path = tmp_path / "mine.parquet"
    write_parquet(path, [encode(picture), encode(picture[::-1])], [0, 1])
    whole = data.load(f"parquet:{path}")
    assert not data.look_up(whole.ids).found.any()
    found = data.look_up(whole.ids, [f"parquet:{path}"])
    assert np.array_equal(found.images, whole.images)
    write_parquet(path, [encode(picture[:, ::-1]), encode(picture[::-1])], [0, 1])
    assert data.look_up(whole.ids, [f"parquet:{path}"]).found.tolist() == [False, True]


def test_folder_by_path_and_content(tmp_path: Path, picture: np.ndarray, encode: Callable[..., bytes]) -> None:
    home = tmp_path / "pets"
    for name, image in (("cat/a.png", picture), ("dog/b.png", picture[::-1])):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(encode(image))
    source = f"folder:{home}"
    whole = data.load(source)
    found = data.look_up(whole.ids[::-1], [source])
    assert np.array_equal(found.images, whole.images[::-1])
    assert found.class_names.tolist() == ["dog", "cat"]
    (home / "cat/a.png").write_bytes(encode(picture[:, ::-1]))
    assert data.look_up(whole.ids, [source]).found.tolist() == [False, True]


def test_an_id_cannot_lead_out_of_its_folder(
    tmp_path: Path, picture: np.ndarray, encode: Callable[..., bytes]
) -> None:
    home = tmp_path / "pets"
    home.mkdir()
    (home / "a.png").write_bytes(encode(picture))
    (tmp_path / "secret.png").write_bytes(encode(picture))
    found = data.look_up(
        ["folder/pets/../secret.png@", f"folder/pets/{tmp_path}/secret.png@"], [f"folder:{home}"]
    )
    assert not found.found.any()
