from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdviz import data

Encode = Callable[..., bytes]
N = 12


@pytest.fixture
def blobs(encode: Encode) -> list[bytes | None]:
    """Row i is a plain picture of grey level i."""
    return [encode(Image.new("RGB", (32, 32), (i, i, i))) for i in range(N)]


def write(
    path: Path,
    blobs: list[bytes | None],
    labels: Any = None,  # noqa: ANN401
    image: str = "img",
    label: str = "label",
    metadata: dict[str, str] | None = None,
) -> Path:
    cells = [{"bytes": blob, "path": f"in/{i}.png"} for i, blob in enumerate(blobs)]
    columns = {image: pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns[label] = labels if isinstance(labels, pa.Array) else pa.array(labels)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=5)
    return path


def test_images_labels_ids_and_names(data_root: Path, blobs: list[bytes | None]) -> None:
    write(data_root / "pets_val.parquet", blobs, [0, 1] * 6, metadata={"class_names": '["cat", "dog"]'})
    pets = data.load("pets")
    assert (pets.name, pets.split, pets.class_names) == ("pets", "val", ("cat", "dog"))
    assert pets.images[:, 3, 3, 1].tolist() == list(range(N)) and pets.labels.tolist() == [0, 1] * 6
    assert pets.ids[7] == "pets/val/00007" and pets.labels.dtype == np.int64


def test_limit_decodes_no_other_row(data_root: Path, blobs: list[bytes | None]) -> None:
    rows = data.permutation(N, 4)[:3].tolist()
    path = data_root / "pets.parquet"
    write(path, [blob if i in rows else b"no picture" for i, blob in enumerate(blobs)], [0, 1, 2] * 4)
    some = data.load("pets", limit=3, seed=4)
    assert some.ids.tolist() == [f"pets/all/{row:05d}" for row in rows]
    assert some.images[:, 0, 0, 0].tolist() == rows and some.labels.tolist() == [row % 3 for row in rows]
    assert some.class_names == ("0", "1", "2")
    with pytest.raises(data.DataError, match=f"{N - 3} of {N} images"):
        data.load("pets")


def test_class_names_of_hugging_face(data_root: Path, blobs: list[bytes | None]) -> None:
    features = {"image": {"_type": "Image"}, "fine_label": {"names": ["x", "y"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write(data_root / "a.parquet", blobs, [1] * N, image="image", label="fine_label", metadata=metadata)
    assert data.load("a").class_names == ("x", "y") and data.load("a").labels.tolist() == [1] * N


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0, None] * 6, pa.int64()),
        pa.array([0, None] * 6, pa.uint8()),
        pa.array([0.0, np.nan] * 6, pa.float32()),
        pa.array([0, -1] * 6, pa.int32()),
    ],
)
def test_unknown_labels(data_root: Path, blobs: list[bytes | None], labels: pa.Array) -> None:
    write(data_root / "a.parquet", blobs, labels)
    assert data.load("a").labels.tolist() == [0, -1] * 6 and data.load("a").class_names == ("0",)


@pytest.mark.parametrize("labels", [None, pa.nulls(N), pa.array([-1] * N)])
def test_no_labels(data_root: Path, blobs: list[bytes | None], labels: pa.Array | None) -> None:
    write(data_root / "a.parquet", blobs, labels)
    assert data.load("a").labels.tolist() == [-1] * N and data.load("a").class_names == ()


def test_other_sizes_are_cut_and_resized(data_root: Path, picture: np.ndarray, encode: Encode) -> None:
    write(data_root / "a.parquet", [encode(picture), encode(picture[:10, :10])])
    assert data.load("a").images.shape == (2, 32, 32, 3)
    assert data.load("a", size_px=10).images.shape == (2, 10, 10, 3)
    assert np.array_equal(data.load("a", size_px=10).images[1], picture[:10, :10])


def test_bad_pictures(data_root: Path, blobs: list[bytes | None]) -> None:
    whole = write(data_root / "a.parquet", blobs, list(range(N)))
    good = data.load("a")
    blobs[3], blobs[8] = b"no picture", None
    write(whole, blobs, list(range(N)))
    with pytest.raises(data.DataError) as caught:
        data.load("a")
    message = str(caught.value)
    assert message.startswith("a.parquet: 2 of 12 images cannot be used: row 3 (in/3.png) is not a picture")
    assert "row 8 (in/8.png) holds no bytes" in message and "\n" not in message
    with pytest.warns(UserWarning, match="2 of 12 images cannot be used"):
        rest = data.load("a", on_error="skip")
    keep = np.array([i for i in range(N) if i not in (3, 8)])
    assert rest.ids.tolist() == good.ids[keep].tolist() and rest.labels.tolist() == keep.tolist()
    assert np.array_equal(rest.images, good.images[keep])


def test_limit_and_skip_together(data_root: Path, blobs: list[bytes | None]) -> None:
    rows = data.permutation(N, 0)[:6].tolist()
    blobs[rows[1]] = b"no picture"
    write(data_root / "a.parquet", blobs, list(range(N)))
    with pytest.warns(UserWarning, match="1 of 6 images cannot be used"):
        rest = data.load("a", limit=6, on_error="skip")
    assert rest.labels.tolist() == [rows[0], *rows[2:]] == rest.images[:, 0, 0, 0].tolist()
    assert rest.ids.tolist() == [f"a/all/{row:05d}" for row in rest.labels]


def test_a_row_without_a_struct(data_root: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"img": pa.array([None], kind)}), data_root / "a.parquet")
    with pytest.raises(data.DataError, match="row 0 holds no bytes"):
        data.load("a")


def test_a_file_anywhere(tmp_path: Path, blobs: list[bytes | None]) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    one = write(tmp_path / "x" / "pets_test.parquet", blobs)
    two = write(tmp_path / "y" / "pets_test.parquet", [blobs[5], *blobs[1:]])
    first, second = data.load(f"parquet:{one}"), data.load(f"parquet:{two}", "test")
    assert first.split == "test" and first.name == f"parquet:{one}"
    assert first.ids[3].startswith("parquet/pets_test/00003@")
    assert first.ids[0] != second.ids[0] and first.ids[1:].tolist() == second.ids[1:].tolist()
    assert data.load(f"parquet:{one}", limit=2).ids.tolist() == first.ids[data.permutation(N, 0)[:2]].tolist()


def table(**columns: Any) -> pa.Table:  # noqa: ANN401
    return pa.table({name: pa.array(*values) for name, values in columns.items()})


STRUCT = pa.struct([("bytes", pa.binary())])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            table(pixels=([1],), label=([1],)),
            "has no column img or image, nor another of bytes; it has pixels, label",
        ),
        (table(img=(["x"],)), "column img must be bytes or struct{bytes, path}, not string"),
        (table(img=([{"path": "x"}],)), "column img must be bytes or struct"),
        (table(img=([{"bytes": "x"}],)), "column img must be bytes or struct"),
        (table(img=([], STRUCT)), "has no rows"),
        (
            table(img=([{"bytes": b"x"}], STRUCT), label=([[1, 2]],)),
            "column label must be whole numbers, words or true and false, not list",
        ),
        (table(img=([{"bytes": b"x"}], STRUCT), label=([1.5],)), "label 1.5 in row 0 is not a whole number"),
        (table(img=([{"bytes": b"x"}], STRUCT), label=([-2],)), "label -2 in row 0"),
        (table(img=([{"bytes": b"x"}], STRUCT), label=([np.inf],)), "label inf in row 0"),
        (
            table(img=([{"bytes": b"x"}], STRUCT), label=([2],)).replace_schema_metadata(
                {"class_names": '["a"]'}
            ),
            "label 2 in row 0 is not a whole number in -1..0",
        ),
        (
            table(img=([{"bytes": b"x"}], STRUCT), label=([0],)).replace_schema_metadata({"class_names": "["}),
            "the class names in its schema metadata cannot be read",
        ),
    ],
)
def test_another_layout_is_one_line_with_the_file(data_root: Path, content: pa.Table, message: str) -> None:
    pq.write_table(content, data_root / "odd.parquet")
    with pytest.raises(data.DataError) as caught:
        data.load("odd")
    assert message in str(caught.value) and "odd.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_parquet_at_all(data_root: Path, blobs: list[bytes | None]) -> None:
    whole = write(data_root / "a.parquet", blobs).read_bytes()
    for content in (b"", b"text", whole[:-20], whole[:4] + bytes(len(whole) - 500) + whole[-496:]):
        (data_root / "a.parquet").write_bytes(content)
        with pytest.raises(data.DataError) as caught:
            data.load("a")
        assert "a.parquet" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(data.DataError, match="does not exist"):
        data.load(f"parquet:{data_root / 'none.parquet'}")
    (data_root / "a.parquet").unlink()
    with pytest.raises(data.DataError, match="no .parquet files"):
        data.load(f"parquet:{data_root}")


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["dog", "cat", None, "dog"], ("cat", "dog"), [1, 0, -1, 1]),
        ([True, False, None, True], ("False", "True"), [1, 0, -1, 1]),
        (pa.array(["y", "x", None, "y"]).dictionary_encode(), ("x", "y"), [1, 0, -1, 1]),
        (pa.array([1, 0, None, 1]).dictionary_encode(), ("0", "1"), [1, 0, -1, 1]),
        (["9", "10", "", "9"], ("9", "10"), [0, 1, -1, 0]),
    ],
)
@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "coarse_label"])
def test_labels_of_any_kind(
    tmp_path: Path,
    blobs: list[bytes | None],
    labels: Any,  # noqa: ANN401
    names: tuple[str, ...],
    expected: list[int],
    column: str,
) -> None:
    name = f"parquet:{write(tmp_path / 'a.parquet', blobs[:4], labels, label=column)}"
    found = data.load(name)
    assert found.class_names == names and found.labels.tolist() == expected
    looked = data.look_up(found.ids, [name])
    assert looked.class_names.tolist() == [names[i] if i >= 0 else "" for i in expected]


def test_a_label_of_another_name_and_plain_bytes(tmp_path: Path, blobs: list[bytes | None]) -> None:
    columns = {"photo": pa.array(blobs, pa.binary()), "breed": ["b", "a"] * 6}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    name = f"parquet:{tmp_path}/a.parquet"
    plain, named = data.load(name), data.load(f"{name}?label=breed")
    assert plain.images[:, 0, 0, 0].tolist() == list(range(N)) and plain.labels.tolist() == [-1] * N
    assert plain.found.warnings[0].endswith("parquet:PATH?label=COLUMN takes one of breed")
    assert named.class_names == ("a", "b") and named.labels.tolist() == [1, 0] * 6
    assert named.ids.tolist() == plain.ids.tolist() and data.look_up(named.ids, [named.name]).found.all()
    for option, message in (("label=x", "has no column x"), ("lable=breed", "no option lable")):
        with pytest.raises(data.DataError, match=message):
            data.load(f"{name}?{option}")


def test_shards_are_one_set(tmp_path: Path, blobs: list[bytes | None]) -> None:
    folder = tmp_path / "pets" / "data"
    folder.mkdir(parents=True)
    write(folder / "train-00000-of-00002.parquet", blobs[:3], ["cat", "dog", "cat"])
    write(folder / "train-00001-of-00002.parquet", blobs[3:8], ["dog"] * 5)
    write(folder / "validation-00000-of-00001.parquet", blobs[8:9], ["fox"])
    write(folder / "test-00000-of-00001.parquet", blobs[9:], ["dog"] * 3)
    name = f"parquet:{tmp_path}/pets"
    assert data.splits(name) == ("train", "val", "test") and data.count(name) == 8
    train = data.load(name)
    assert train.images[:, 0, 0, 0].tolist() == list(range(8)) and train.split == "train"
    # the classes of all splits
    assert train.class_names == ("cat", "dog", "fox") and train.labels.tolist() == [0, 1, 0, 1, 1, 1, 1, 1]
    test = data.load(f"{name}:test")
    assert test.labels.tolist() == [1] * 3 and test.images[:, 0, 0, 0].tolist() == [9, 10, 11]
    assert train.ids[4].startswith("parquet/pets/train/00004@")
    assert train.found.splits == {"train": 8, "val": 1, "test": 3}
    found = data.look_up([test.ids[1], train.ids[6]], [name])
    assert found.images[:, 0, 0, 0].tolist() == [10, 6] and found.class_names.tolist() == ["dog", "dog"]
    some = data.load(name, limit=4, seed=2)
    assert some.ids.tolist() == train.ids[data.permutation(8, 2)[:4]].tolist()
    assert data.load(f"parquet:{folder}/train-*.parquet").images[:, 0, 0, 0].tolist() == list(range(8))
    one = data.load(f"parquet:{folder}/train-00000-of-00002.parquet")
    line = f"one of 2 files of its set: parquet:{folder} takes all"
    assert len(one) == 3 and line in one.found.warnings and one.found.offered == ()
    write(folder / "test-00000-of-00001.parquet", blobs[9:], ["dog"] * 3, image="image")
    write(folder / "train-00001-of-00002.parquet", blobs[3:8], ["dog"] * 5, image="image")
    with pytest.raises(data.DataError, match="train-00001.* has other columns or classes than train-00000"):
        data.load(name)


def test_a_damaged_split_harms_no_other(data_root: Path, blobs: list[bytes | None]) -> None:
    write(data_root / "pets_train.parquet", blobs, [0] * N)
    (data_root / "pets_test.parquet").write_bytes(b"text")
    found = data.load("pets", "train").found
    assert found.splits == {"train": N} and found.warnings[0].startswith("split test: ")


def test_words_agree_between_the_splits_of_a_named_set(data_root: Path, blobs: list[bytes | None]) -> None:
    write(data_root / "pets_train.parquet", blobs[:2], ["cat", "dog"])
    write(data_root / "pets_test.parquet", blobs[:1], ["dog"])
    assert data.load("pets", "test").labels.tolist() == [1]


def test_one_range_for_all_splits(data_root: Path, encode: Encode) -> None:
    grey = {level: encode(Image.fromarray(np.full((8, 8), level, np.uint16))) for level in (4095, 1000)}
    write(data_root / "scans_train.parquet", [grey[4095]], [0])
    write(data_root / "scans_test.parquet", [grey[1000]], [0])
    test = data.load("scans", "test", size_px=8)
    assert test.images[0, 0, 0].tolist() == [62, 62, 62] and test.found.modes == {"I;16": 1}


def test_a_picture_may_lie_beside_its_table(tmp_path: Path, blobs: list[bytes | None]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(blobs[5] or b"")
    write(tmp_path / "a.parquet", [None])
    assert data.load(f"parquet:{tmp_path}/a.parquet").images[0, 0, 0, 0] == 5


def test_splits_that_name_other_classes_are_told(tmp_path: Path, blobs: list[bytes | None]) -> None:
    for split, names in (("train", '["cat", "dog"]'), ("test", '["dog", "cat"]')):
        write(tmp_path / f"{split}-0.parquet", blobs, [0, 1] * 6, metadata={"class_names": names})
    line = "split test names other classes than split train"
    assert line in data.load(f"parquet:{tmp_path}").found.warnings
