from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz import data
from sdviz.data import DataError


def pictures(n: int = 7, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.mark.parametrize("key", ["images", "x", "arr_0", "sd_outliers"])
@pytest.mark.parametrize("channels_first", [False, True])
def test_an_npz_is_read_whatever_its_array_is_called(tmp_path: Path, key: str, channels_first: bool) -> None:
    images, labels = pictures(), np.array([0, 2, 1, 1, -1, 0, 2])
    stored = images.transpose(0, 3, 1, 2) if channels_first else images
    np.savez_compressed(tmp_path / "own.npz", **{key: stored, "labels": labels, "S": np.full(7, 100)})
    found = data.load(f"npz:{tmp_path}/own.npz")
    assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)
    assert found.class_names == ("0", "1", "2") and found.split == "all"
    assert found.ids[3].startswith("npz/own/00003@") and len(set(found.ids.tolist())) == 7
    assert data.count(f"npz:{tmp_path}/own.npz") == 7 and data.splits(f"npz:{tmp_path}/own.npz") == ("all",)


def test_an_npy_has_images_alone_and_limit_takes_some(tmp_path: Path) -> None:
    images = pictures(20)
    np.save(tmp_path / "own.npy", images)
    name = f"npy:{tmp_path}/own.npy"
    whole, some = data.load(name), data.load(name, limit=5, seed=3)
    assert (whole.labels == -1).all() and whole.class_names == ()
    rows = data.permutation(20, 3)[:5]
    assert np.array_equal(some.images, images[rows]) and some.ids.tolist() == whole.ids[rows].tolist()
    assert data.parse_source(name) == (name, None)


def test_other_sizes_are_cut_and_resized(tmp_path: Path) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (2, 40, 60, 3), np.uint8)
    np.savez(tmp_path / "wide.npz", data=wide)
    found = data.load(f"npz:{tmp_path}/wide.npz")
    want = Image.fromarray(wide[1][:, 10:50]).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(found.images[1], np.asarray(want))


def test_class_names_and_column_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pictures(3), y=np.array([[1], [0], [1]]), class_names=["cat", "dog"])
    found = data.load(f"npz:{tmp_path}/a.npz")
    assert [found.label_name(i) for i in range(3)] == ["dog", "cat", "dog"]


def test_images_are_found_again_by_their_ids(tmp_path: Path) -> None:
    images = pictures(9)
    source = f"npz:{tmp_path}/own.npz"
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(9) % 2)
    ids = data.load(source).ids[[5, 2]]
    found = data.look_up(ids, [source])
    assert found.found.all() and np.array_equal(found.images, images[[5, 2]]) and not found.missing
    plain = data.look_up(ids, [source], pictures=False)
    assert plain.found.all() and plain.class_names.tolist() == ["1", "0"]
    # another picture in its place is another image
    images[5] = 0
    np.savez(tmp_path / "own.npz", images=images)
    assert data.look_up(ids, [source]).found.tolist() == [False, True]
    assert "its place on this machine is not known" in data.look_up(ids).missing[0]


def damaged(path: Path) -> None:
    np.savez(path, images=pictures())
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, "does not exist"),
        (damaged, "cannot be read as .npz"),
        (lambda p: p.write_bytes(b"no zip"), "cannot be read as .npz: it does not begin as a NumPy file does"),
        (lambda p: p.write_bytes(b""), "it does not begin as a NumPy file does"),
        (lambda p: np.savez(p, images=np.zeros((2, 32, 32, 3), complex)), "numbers .*, not complex128"),
        (lambda p: np.savez(p, images=np.zeros((2, 32, 32, 5))), r"\(N,H,W,3\), .*, not \(2,32,32,5\)"),
        (lambda p: np.savez(p, images=np.zeros((32, 32, 3), np.uint8)), r"\(32,32,3\) may be one picture"),
        (lambda p: np.savez(p, a=pictures(), b=pictures()), "2 arrays of images"),
        (lambda p: np.savez(p, features=np.zeros((4, 8))), "no array of images.*it has features"),
        (lambda p: np.savez(p, images=pictures(0)), "holds no images"),
        (lambda p: np.savez(p, images=pictures(), labels=np.arange(3)), r"whole numbers or words \(7,\)"),
        (lambda p: np.savez(p, images=pictures(), labels=np.full(7, 0.5)), "label 0.5 in row 0"),
        (lambda p: np.savez(p, images=pictures(), y=np.full(7, 2), class_names=["a"]), "label 2 in row 0"),
        (lambda p: np.savez(p, images=np.array([{"a": 1}], dtype=object)), "it holds Python objects"),
        (lambda p: np.save(p.with_suffix(".npy"), pictures()) or p.with_suffix(".npy").rename(p), "npy:PATH"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, write: object, message: str) -> None:
    path = tmp_path / "own.npz"
    write(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        data.load(f"npz:{path}")
    assert "\n" not in str(caught.value) and "pickle" not in str(caught.value)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda p: p.write_text("1 2 3\n4 5 6\n"),
            "own.npy cannot be read as .npy: it does not begin as a NumPy",
        ),
        (lambda p: p.write_bytes(pickle.dumps([1, 2])), "it does not begin as a NumPy"),
        (lambda p: np.save(p, np.array([{"a": 1}], dtype=object)), "it holds Python objects, which are never"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01"), "cannot be read as .npy"),
    ],
)
def test_what_is_no_npy_is_said_without_numpys_advice(tmp_path: Path, write: object, message: str) -> None:
    path = tmp_path / "own.npy"
    write(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=message) as caught:
        data.load(f"npy:{path}")
    assert "\n" not in str(caught.value) and "pickle" not in str(caught.value)


def test_a_name_without_a_path_says_so() -> None:
    with pytest.raises(DataError, match="needs a path, as in npz:PATH"):
        data.load("npz:")


@pytest.mark.parametrize(
    ("stored", "value_range"),
    [
        (lambda x: x, "0..255"),
        (lambda x: x.astype(np.int64), "0..255"),
        (lambda x: x.astype(np.uint16) * 257, "0..65535"),
        (lambda x: x.astype(">f4") / 255, "0..1"),
        (lambda x: x / 127.5 - 1, "-1..1"),
        (lambda x: x.astype(np.float16), "0..255"),
        (lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], -1), "0..255"),
        (lambda x: x.transpose(0, 3, 1, 2) / 255, "0..1"),
    ],
)
def test_numbers_of_any_type_give_the_same_pictures(tmp_path: Path, stored: object, value_range: str) -> None:
    images = pictures()
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    np.savez(tmp_path / "own.npz", images=stored(images))  # type: ignore[operator]
    found = data.load(f"npz:{tmp_path}/own.npz")
    assert np.array_equal(found.images, images) and found.found.value_range == value_range
    assert np.array_equal(data.look_up(found.ids, [found.name]).images, images)


@pytest.mark.parametrize("axes", [lambda x: x, lambda x: x[..., None], lambda x: x[:, None]])
def test_grey_pictures_and_splits(tmp_path: Path, axes: object) -> None:
    grey = pictures()[..., 0]
    arrays = {
        "x_train": grey[:4],
        "y_train": np.array([0, 1, 2, 1]),
        "x_test": grey[4:],
        "y_test": np.zeros((3, 1)),
    }
    stored = {key: axes(one) if key[0] == "x" else one for key, one in arrays.items()}  # type: ignore[operator]
    np.savez(tmp_path / "mnist.npz", **stored)
    name = f"npz:{tmp_path}/mnist.npz"
    assert data.splits(name) == ("train", "test") and data.count(name) == 4
    train, test = data.load(name), data.load(f"{name}:test")
    assert np.array_equal(train.images, np.repeat(grey[:4, ..., None], 3, -1))
    assert np.array_equal(test.images[..., 2], grey[4:]) and test.labels.tolist() == [0, 0, 0]
    assert train.labels.tolist() == [0, 1, 2, 1] and test.ids[0].startswith("npz/mnist/test/00000@")
    assert test.found.splits == {"train": 4, "test": 3}
    found = data.look_up([test.ids[2], train.ids[1]], [name])
    assert np.array_equal(found.images, [test.images[2], train.images[1]])


def test_one_range_for_all_splits(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8), np.uint16)
    images[0], images[1] = 4095, 1000
    np.savez(tmp_path / "s.npz", train_images=images[:1], test_images=images[1:])
    assert data.load(f"npz:{tmp_path}/s.npz:test", size_px=8).images[0, 0, 0].tolist() == [62, 62, 62]


def test_labels_may_be_words_or_one_hot(tmp_path: Path) -> None:
    name = f"npz:{tmp_path}/own.npz"
    np.savez(tmp_path / "own.npz", images=pictures(3), labels=np.array(["dog", "cat", "dog"]))
    assert data.load(name).class_names == ("cat", "dog") and data.load(name).labels.tolist() == [1, 0, 1]
    np.savez(tmp_path / "own.npz", images=pictures(3), y=np.eye(4)[[2, 0, 3]])
    assert data.load(name).labels.tolist() == [2, 0, 3]
    np.savez(tmp_path / "own.npz", images=pictures(3), y=np.full((3, 4), 0.25))
    with pytest.raises(DataError, match="has not exactly one 1"):
        data.load(name)


HEADER = "{'descr':'|u1','fortran_order':False,'shape':(%s,8,8,3)}"


@pytest.mark.parametrize(
    "header", [HEADER % -1, HEADER % ("9" * 300), HEADER % 10**12, "(" * 2000, "{" * 900, "\xff", "1+1", ""]
)
def test_hostile_headers_are_refused_in_one_line(tmp_path: Path, header: str) -> None:
    raw = header.encode("latin-1")
    whole = b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw
    (tmp_path / "h.npy").write_bytes(whole)
    with zipfile.ZipFile(tmp_path / "h.npz", "w") as archive:
        archive.writestr("images.npy", whole)
    for kind in ("npy", "npz"):
        for ask in (data.load, data.count):
            with pytest.raises(DataError, match=f"h.{kind} cannot be read as .{kind}: ") as caught:
                ask(f"{kind}:{tmp_path}/h.{kind}")
            assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_broken_deflate_is_refused_in_one_line(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "own.npz", images=pictures())
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[200:400] = b"\xff" * 200
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as .npz: Error -3"):
        data.load(f"npz:{tmp_path}/own.npz")
    assert "cannot be read" in data.look_up(["npz/own/00000@"], [f"npz:{tmp_path}/own.npz"]).missing[0]


def test_what_would_unpack_to_too_much_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdviz.data.sources.arrays._LARGEST_ARRAY", 20_000)
    np.savez_compressed(tmp_path / "own.npz", images=np.zeros((7, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="images has 21,632 bytes; save it as .npy"):
        data.load(f"npz:{tmp_path}/own.npz")
