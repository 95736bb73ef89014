from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz import data

Encode = Callable[..., bytes]


def fill(root: Path, encode: Encode, **colours: tuple[int, int, int]) -> Path:
    """Writes plain pictures; `cats__a` is the file cats/a.png."""
    for name, colour in colours.items():
        path = root / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.new("RGB", (40, 24), colour)))
    return root


@pytest.fixture
def pets(tmp_path: Path, encode: Encode) -> Path:
    colours = {"dog__b": (0, 0, 1), "cat__z": (0, 0, 2), "cat__deep__er": (0, 0, 3), "dog__a": (0, 0, 4)}
    return fill(tmp_path / "pets", encode, **colours)


def test_a_sub_folder_is_a_class(pets: Path) -> None:
    (pets / "dog" / "notes.txt").write_text("passed over")
    (pets / ".hidden").mkdir()
    (pets / ".hidden" / "x.png").write_bytes(b"passed over")
    (pets / "dog" / "._a.png").write_bytes(b"passed over")
    (pets / "fox").mkdir()
    whole = data.load(f"folder:{pets}")
    assert whole.class_names == ("cat", "dog", "fox") and whole.split == "all"
    assert whole.name == f"folder:{pets}"
    assert whole.labels.tolist() == [0, 0, 1, 1]
    assert whole.images[:, 5, 5, 2].tolist() == [3, 2, 4, 1]
    assert [one.split("@")[0] for one in whole.ids] == [
        f"folder/pets/{inside}" for inside in ("cat/deep/er.png", "cat/z.png", "dog/a.png", "dog/b.png")
    ]
    assert data.splits(f"folder:{pets}") == ("all",)


def test_a_flat_folder_has_no_labels(tmp_path: Path, encode: Encode) -> None:
    fill(tmp_path, encode, b=(1, 1, 1), a=(2, 2, 2))
    (tmp_path / "notes").mkdir()
    flat = data.load(f"folder:{tmp_path}")
    assert flat.labels.tolist() == [-1, -1] and flat.class_names == ()
    assert flat.images[:, 0, 0, 0].tolist() == [2, 1]


def test_pictures_next_to_class_folders_are_unlabelled(pets: Path, encode: Encode) -> None:
    fill(pets, encode, loose=(9, 9, 9))
    whole = data.load(f"folder:{pets}")
    assert dict(zip(whole.images[:, 0, 0, 2].tolist(), whole.labels.tolist(), strict=True))[9] == -1


def test_limit_changes_no_image_and_no_id(pets: Path) -> None:
    whole = data.load(f"folder:{pets}")
    rows = data.permutation(4, 3)[:2]
    some = data.load(f"folder:{pets}", limit=2, seed=3)
    assert some.ids.tolist() == whole.ids[rows].tolist()
    assert np.array_equal(some.images, whole.images[rows]) and np.array_equal(some.labels, whole.labels[rows])
    assert some.class_names == whole.class_names


def test_limit_opens_no_other_file(pets: Path) -> None:
    files = sorted(pets.rglob("*.png"))
    keep = files[data.permutation(4, 0)[0]]
    for path in files:
        if path != keep:
            path.write_bytes(b"not a picture")
    assert data.load(f"folder:{pets}", limit=1).ids[0].split("@")[0].endswith(keep.relative_to(pets).as_posix())


def test_two_folders_of_one_name_do_not_share_ids(tmp_path: Path, encode: Encode) -> None:
    first = data.load(f"folder:{fill(tmp_path / 'x' / 'pets', encode, a=(1, 1, 1), b=(5, 5, 5))}")
    second = data.load(f"folder:{fill(tmp_path / 'y' / 'pets', encode, a=(2, 2, 2), b=(5, 5, 5))}")
    assert first.ids[0] != second.ids[0]
    assert first.ids[1] == second.ids[1]  # the same picture at the same place: the same id


def test_ids_do_not_depend_on_where_the_folder_lies(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = data.load(f"folder:{pets}").ids.tolist()
    monkeypatch.chdir(pets)
    assert data.load("folder:.").ids.tolist() == ids
    assert data.load("folder:../pets/").ids.tolist() == ids


def test_size(pets: Path) -> None:
    assert data.load(f"folder:{pets}").images.shape == (4, 32, 32, 3)
    assert data.load(f"folder:{pets}", size_px=48).images.shape == (4, 48, 48, 3)


def test_bad_files_stop_the_load_by_name_and_number(pets: Path) -> None:
    (pets / "cat" / "bad.jpg").write_bytes(b"text")
    (pets / "dog" / "a.png").write_bytes((pets / "dog" / "a.png").read_bytes()[:60])
    with pytest.raises(data.DataError) as caught:
        data.load(f"folder:{pets}")
    message = str(caught.value)
    assert "2 of 5 images cannot be used" in message and "\n" not in message
    assert "cat/bad.jpg is not a picture" in message and "dog/a.png is cut short or damaged" in message


def test_bad_files_can_be_skipped(pets: Path) -> None:
    whole = data.load(f"folder:{pets}")
    (pets / "cat" / "bad.jpg").write_bytes(b"text")
    with pytest.warns(UserWarning, match=r"1 of 5 images cannot be used: cat/bad\.jpg .*; left out") as caught:
        rest = data.load(f"folder:{pets}", on_error="skip")
    assert caught[0].filename == __file__
    assert rest.ids.tolist() == whole.ids.tolist() and np.array_equal(rest.images, whole.images)
    assert np.array_equal(rest.labels, whole.labels)


def test_nothing_good_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(b"text")
    with pytest.raises(data.DataError, match="9 of 9 images .*; and 4 more"):
        data.load(f"folder:{tmp_path}", on_error="skip")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads any file")
def test_a_file_without_permission_is_a_bad_file(pets: Path) -> None:
    (pets / "dog" / "a.png").chmod(0)
    with pytest.raises(data.DataError, match=r"dog/a\.png cannot be read: Permission denied"):
        data.load(f"folder:{pets}")


def test_a_broken_link_is_a_bad_file(pets: Path) -> None:
    (pets / "dog" / "c.png").symlink_to(pets / "nowhere.png")
    with pytest.raises(data.DataError, match=r"1 of 5 images cannot be used: dog/c\.png cannot be read"):
        data.load(f"folder:{pets}")


def test_linked_folders(pets: Path, tmp_path: Path, encode: Encode) -> None:
    (pets / "fox").symlink_to(fill(tmp_path / "elsewhere", encode, f=(7, 7, 7)))
    (pets / "dog" / "loop").symlink_to(pets)
    whole = data.load(f"folder:{pets}")
    assert len(whole) == 5 and whole.ids[-1].startswith("folder/pets/fox/f.png@")


@pytest.mark.parametrize(
    ("place", "message"),
    [("none", "no such folder"), ("file", "is a file"), ("empty", "no pictures in this folder")],
)
def test_no_folder_to_read(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    with pytest.raises(data.DataError, match=message):
        data.load(f"folder:{tmp_path / place}")


def test_says_how_much_of_it_is_jpeg(pets: Path) -> None:
    assert data.load(f"folder:{pets}").jpeg_share == 0.0
    for name in ("dog/c.jpg", "dog/d.jpg"):
        Image.new("RGB", (40, 24), (0, 0, 5)).save(pets / name)
    # a name is no proof of what is in a file
    (pets / "cat" / "w.jpg").write_bytes((pets / "cat" / "z.png").read_bytes())
    whole = data.load(f"folder:{pets}")
    assert whole.jpeg_share == pytest.approx(2 / 7)
    assert whole.take(np.array([0, 1])).jpeg_share == whole.jpeg_share
    assert data.load("shapes", limit=2).jpeg_share == data.load("digits", limit=2).jpeg_share == 0.0
