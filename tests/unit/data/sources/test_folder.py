from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz import data
from sdviz.data.sources.folder import SOURCE

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


def test_a_split_is_taken_by_name(tmp_path: Path, encode: Encode) -> None:
    splits = {"Train__cat__a": (200, 0, 1), "Train__dog__b": (0, 0, 2), "VALID__cat__c": (0, 0, 3)}
    root = fill(tmp_path / "pets", encode, **splits, testing__dog__d=(0, 255, 4))
    name = f"folder:{root}"
    assert data.splits(name) == ("train", "val", "test") and data.count(name) == 2
    train = data.load(name)
    assert train.split == "train" and train.images[:, 0, 0, 2].tolist() == [1, 2]
    assert train.class_names == ("cat", "dog") and train.labels.tolist() == [0, 1]
    assert train.found.splits == {"train": 2, "val": 1, "test": 1}
    for asked in (f"{name}:test", f"{name}:Testing"):
        test = data.load(asked)
        assert test.split == "test" and test.labels.tolist() == [1] and test.images[0, 0, 0, 2] == 4
        assert test.class_names == ("cat", "dog") and data.splits(asked) == ("test",)
    assert data.load(name, "validation").ids[0].startswith("folder/pets/VALID/cat/c.png@")
    found = data.look_up([*test.ids, *train.ids], [name])
    assert found.found.all() and found.images[:, 0, 0, 2].tolist() == [4, 1, 2]
    assert found.class_names.tolist() == ["dog", "cat", "dog"]
    with pytest.raises(data.DataError, match="no split 'none'; it has train, val, test"):
        data.load(f"{name}:none")


def test_defects_are_offered_as_another_set(tmp_path: Path, encode: Encode) -> None:
    root = fill(
        tmp_path / "bottle", encode, train__good__a=(1, 0, 0), test__good__b=(255, 0, 0),
        test__crack__c=(3, 0, 0), test__hole__d=(4, 0, 0), ground_truth__crack__c_mask=(9, 9, 9),
    )  # fmt: skip
    train = data.load(f"folder:{root}")
    assert train.images[:, 0, 0, 0].tolist() == [1] and train.class_names == ("good",)
    assert train.found.passed_over == {"ground_truth": 1}
    assert train.found.offered == tuple(
        f"folder:{root}:{one}" for one in ("defects", "test/crack", "test/hole")
    )
    reds = [data.load(one).images[:, 0, 0, 0].tolist() for one in (f"folder:{root}:test", *train.found.offered)]
    assert reds == [[255], [3, 4], [3], [4]]
    defects = data.load(train.found.offered[0])
    assert defects.labels.tolist() == [0, 1] and defects.class_names == ("crack", "hole")
    found = data.look_up([*defects.ids, *train.ids], [f"folder:{root}"])
    assert found.class_names.tolist() == ["crack", "hole", "good"]


def test_what_is_passed_over_is_told(pets: Path) -> None:
    for name in ("dog/x.heic", "dog/y.HEIC", "Thumbs.db", "cat/@eaDir/z.png/SYNOPHOTO_THUMB_M.jpg"):
        (pets / name).parent.mkdir(parents=True, exist_ok=True)
        (pets / name).write_bytes(b"x")
    found = data.load(f"folder:{pets}").found
    assert found.passed_over == {".heic": 2, ".db": 1, "@eaDir": 1}
    assert found.warnings[0] == "2 .heic: no decoder; pip install pillow-heif"
    assert found.sizes == {"40x24": 4} and found.modes == {"RGB": 4} and found.splits == {"all": 4}
    assert found.value_range == "0..255" and found.unreadable == ()


def test_a_folder_of_what_cannot_be_read_says_what_helps(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(data.DataError, match="no pictures .*passed over: 1 .heic: no decoder; pip install"):
        data.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".avif", ".jp2", ".tga"])
def test_every_suffix_of_pillow_is_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (32, 32), (250, 0, 0)).save(tmp_path / f"a{suffix}")
    assert np.abs(data.load(f"folder:{tmp_path}").images[0, 9, 9].astype(int) - (250, 0, 0)).max() <= 6


def test_names_in_any_bytes_give_ids_that_are_text(tmp_path: Path, encode: Encode) -> None:
    home = tmp_path / os.fsdecode(b"caf\xe9")
    inside = home / os.fsdecode(b"\xfft\xe9")
    inside.mkdir(parents=True)
    (inside / os.fsdecode(b"a\xe9.png")).write_bytes(encode(Image.new("RGB", (9, 9), "red")))
    for name in (f"folder:{home}", f"folder:{tmp_path}/caf%E9"):
        some = data.load(name)
        assert some.ids[0].startswith("folder/caf%E9/%FFt%E9/a%E9.png@") and some.class_names == ("%FFt%E9",)
        for text in (some.name, *some.ids, *some.class_names):
            text.encode()
        found = data.look_up(some.ids, [some.name])
        assert found.found.all() and found.class_names.tolist() == ["%FFt%E9"]
        (file,) = SOURCE.paths_of(some.name, some.ids.tolist())
        assert file.is_file()
        assert data.load(some.name).ids.tolist() == some.ids.tolist()


def test_two_folders_of_one_name_are_both_looked_in(tmp_path: Path, encode: Encode) -> None:
    homes = [fill(tmp_path / top / "pets", encode, **{top: (i, i, i)}) for i, top in enumerate("xy")]
    ids = [data.load(f"folder:{home}").ids[0] for home in homes]
    found = data.look_up(ids, [f"folder:{home}" for home in homes])
    assert found.found.all() and found.images[:, 0, 0, 0].tolist() == [0, 1]


def test_what_is_no_file_is_refused_and_does_not_wait(pets: Path) -> None:
    os.mkfifo(pets / "cat" / "pipe.png")
    with pytest.raises(data.DataError, match=r"cat/pipe\.png cannot be read: is not a file"):
        data.load(f"folder:{pets}")


def deep(path: Path, *levels: int) -> Path:
    path.mkdir()
    for i, level in enumerate(levels):
        Image.fromarray(np.full((32, 32), level, np.uint16)).save(path / f"{i}.png")
    return path


def test_one_range_for_all_splits_of_a_set(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    root.mkdir()
    deep(root / "train", 4000, 100)
    deep(root / "test", 900, 0)
    name = f"folder:{root}"
    train, test = data.load(name), data.load(f"{name}:test")
    assert train.found.value_range == test.found.value_range == "0..4095"
    assert train.images[:, 0, 0, 0].tolist() == [249, 6] and test.images[:, 0, 0, 0].tolist() == [56, 0]
    assert data.load(name, limit=1).images[0, 0, 0, 0] in (249, 6)
    assert data.look_up(test.ids, [name]).images[:, 0, 0, 0].tolist() == [56, 0]
    wide = data.load(name, value_range="0..65535")
    assert wide.images[:, 0, 0, 0].tolist() == [16, 0] and wide.found.value_range == "0..65535"
    assert "under an eighth of 0..65535" in wide.found.warnings[-1]
    found = data.look_up(wide.ids, [name], value_range="0..65535")
    assert np.array_equal(found.images, wide.images)


def test_pictures_that_are_not_square(tmp_path: Path) -> None:
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, :16, 0] = 200
    halves[:, 16:, 1] = 200
    Image.fromarray(halves).save(tmp_path / "a.png")
    name = f"folder:{tmp_path}"
    crop, pad, stretch = (data.load(name, size_px=16, fit=fit) for fit in ("crop", "pad", "stretch"))
    assert np.array_equal(crop.images[0], halves[:, 8:24])
    assert not pad.images[0, :4].any() and not pad.images[0, 12:].any()
    assert pad.images[0, 4:12, 0].tolist() == [[200, 0, 0]] * 8 and pad.images[0, 8, 15].tolist() == [0, 200, 0]
    assert stretch.images[0, :, 0].tolist() == [[200, 0, 0]] * 16
    assert np.array_equal(data.look_up(pad.ids, [name], 16, fit="pad").images, pad.images)
    with pytest.raises(data.DataError, match="fit must be crop, pad, stretch, not 'fill'"):
        data.load(name, fit="fill")
