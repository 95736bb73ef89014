from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz import data
from sdviz.config.tree import EvaluationConfig
from sdviz.data import stack
from sdviz.data.check import NEIGHBOURS, SHOWN, check_images, check_source
from sdviz.data.decode import Picture
from sdviz.data.found import Found
from sdviz.data.imageset import ImageSet
from tests.tiny_runs import write_splits

KEYS = {
    "pictures", "classes", "splits", "passed_over", "unreadable", "exact_copies", "near_copies", "overlap",
    "value_range", "warnings",
}  # fmt: skip


def drawn(n: int, seed: int = 0) -> ImageSet:
    return data.load("shapes", "train", limit=n, seed=seed)


def save(folder: Path, pictures: np.ndarray, ending: str = "png") -> Path:
    folder.mkdir(parents=True)
    for i, one in enumerate(pictures):
        Image.fromarray(one).save(folder / f"{i:02d}.{ending}")
    return folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """12 cats and 8 dogs; one cat three times, another one as JPEG too, and a dog among the cats."""
    images = drawn(20).images
    cats, dogs = save(tmp_path / "pets" / "cat", images[:12]), save(tmp_path / "pets" / "dog", images[12:])
    shutil.copy(cats / "00.png", cats / "again.png")
    Image.fromarray(images[0]).save(cats / "again.bmp")
    Image.fromarray(images[1]).save(cats / "01.jpg", quality=85)
    shutil.copy(dogs / "03.png", cats / "dog.png")
    return tmp_path / "pets"


def test_copies_and_classes_of_a_folder(pets: Path) -> None:
    found = check_source(f"folder:{pets}")
    tree = found.as_json()
    assert set(tree) == KEYS and json.loads(json.dumps(tree)) == tree
    assert (tree["pictures"], tree["classes"]) == (24, {"cat": 16, "dog": 8})
    assert (tree["exact_copies"], tree["near_copies"]) == (3, 1)
    assert tree["warnings"] == ["copies in another class than the picture that they repeat: 1"]
    assert not found.refusals
    # the pictures concerned, each with the one that it repeats
    name = "folder/pets/cat/"
    pairs = {
        tuple(one.partition("@")[0] for one in pair)
        for pair in zip(found.exact.ids, found.exact.of, strict=True)
    }
    assert {(f"{name}again.bmp", f"{name}00.png"), (f"{name}again.png", f"{name}00.png")} < pairs
    assert (found.exact.pictures[:, 0] == found.exact.pictures[:, 1]).all()
    assert len(found.near) == 1 and found.near.pictures.shape == (1, 2, 32, 32, 3)
    assert "01." in found.near.ids[0] and "01." in found.near.of[0]


def test_pictures_of_other_sets_are_counted(pets: Path, tmp_path: Path) -> None:
    shared = [np.asarray(Image.open(pets / "cat" / f"{i:02d}.png")) for i in (0, 0, 5)]
    ood = save(tmp_path / "ood", np.stack([*shared, *drawn(9, seed=5).images]))
    Image.open(pets / "dog" / "00.png").resize((64, 64)).save(ood / "large.png")
    found = check_source(f"folder:{pets}", [f"folder:{ood}", "digits"])
    assert found.as_json()["overlap"] == {f"folder:{ood}": 3, "digits": 0}
    assert not found.refusals
    beside = found.others[f"folder:{ood}"]
    assert [one.partition("@")[0] for one in beside.near.ids] == ["folder/ood/large.png"]
    assert [one.partition("@")[0] for one in beside.near.of] == ["folder/pets/dog/00.png"]
    assert f"folder:{ood}: 1 picture is nearly equal to some in folder:{pets}, and kept" in found.warnings


def test_sets_that_have_two_roles_are_refused_and_counted(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pets)
    for inner, n in ((f"folder:{pets}/dog", 8), (f"folder:{tmp_path}/link", 24)):
        found = check_source(f"folder:{pets}", [inner])
        assert len(found.refusals) == 1 and "two roles" in found.refusals[0]
        assert found.as_json()["overlap"] == {inner: n}
        assert found.as_json()["warnings"][0] == found.refusals[0]
    # OOD sets among each other
    found = check_source("shapes", [f"folder:{pets}", f"folder:{pets}/dog"])
    assert "lies inside" in found.refusals[0]
    # copies under names of their own
    shutil.copytree(pets / "dog", tmp_path / "copied")
    found = check_source(f"folder:{pets}", [f"folder:{tmp_path}/copied"])
    assert found.refusals == (
        f"folder:{tmp_path}/copied: all its pictures are in folder:{pets}, too: none is left to measure on",
    )


def test_what_cannot_be_read_is_refused(pets: Path) -> None:
    (pets / "cat" / "broken.png").write_bytes(b"no picture")
    found = check_source(f"folder:{pets}", ["folder:/nowhere", "no-such-set"])
    assert len(found.refusals) == 3
    assert "1 of 25 images cannot be used: cat/broken.png is not a picture" in found.refusals[0]
    assert found.refusals[0].endswith("data.on_error=skip leaves them out")
    assert found.refusals[1] == "folder:/nowhere: no such folder" and "no data set" in found.refusals[2]
    assert (found.as_json()["pictures"], found.as_json()["overlap"]) == (24, {})
    nothing = check_source("folder:/nowhere")
    assert nothing.as_json()["pictures"] == 0 and set(nothing.as_json()) == KEYS
    assert nothing.as_json()["warnings"] == ["folder:/nowhere: no such folder"]


def test_what_a_decoder_warns_of_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "old", drawn(12).images)
    decode = stack.open_picture

    def warning(blob: bytes, formats: tuple[str, ...]) -> Picture:
        warnings.warn("Corrupt EXIF data", stacklevel=1)
        return decode(blob, formats)

    monkeypatch.setattr(stack, "open_picture", warning)
    found = check_source(f"folder:{folder}")
    assert (found.pictures, found.refusals) == (12, ())


def test_pictures_of_which_none_can_be_held_out_are_refused(tmp_path: Path) -> None:
    one = save(tmp_path / "one", drawn(1).images)
    (line,) = check_source(f"folder:{one}").refusals
    assert line == f"folder:{one}: there is one picture: none can be held out for testing"
    for i in range(3):
        shutil.copy(one / "00.png", one / f"{i}.png")
    (line,) = check_source(f"folder:{one}").refusals
    assert line == f"folder:{one}: there are 4 pictures, all equal: none can be held out for testing"


def test_a_test_split_is_compared_with_the_training_split(data_root: Path) -> None:
    images = drawn(14).images
    near = np.asarray(Image.open(jpeg(images[0])))
    write_splits(data_root, "cats", {"train": images[:10], "test": np.stack([*images[8:], near])})
    found = check_source("cats")
    assert found.as_json()["splits"] == {"train": 10, "test": 7}
    assert (found.pictures, found.split, found.as_json()["overlap"]) == (10, "train", {})
    assert found.warnings == (
        "split test: 2 pictures are also in split train, and left out",
        "split test: 1 picture is nearly equal to some in split train, and kept",
    )
    write_splits(data_root, "dogs", {"train": images, "test": images[3:5]})
    assert check_source("dogs").refusals == ("dogs: every picture of split test is in train, too",)
    assert check_source("dogs:test").as_json()["pictures"] == 2


def test_defects_are_no_part_of_the_product(tmp_path: Path) -> None:
    images = drawn(20).images
    for folder, rows in (
        ("train/good", slice(0, 9)),
        ("test/good", slice(9, 12)),
        ("test/dent", slice(12, 16)),
    ):
        save(tmp_path / "product" / folder, images[rows])
    save(tmp_path / "product" / "ground_truth" / "dent", images[16:])
    name = f"folder:{tmp_path}/product"
    found = check_source(name, [f"{name}:defects"])
    assert (found.pictures, found.refusals) == (9, ())
    assert found.as_json()["overlap"] == {f"{name}:defects": 0} and f"{name}:defects" in found.found.offered
    assert check_source(name, [f"{name}/test/dent"]).refusals == ()
    for inner in (f"{name}:test", f"{name}/test/good", f"{name}/train"):
        (line,) = [one for one in check_source(name, [inner]).refusals if "two roles" in one]
        assert line == f"{inner} lies inside {name}: its images would have two roles"


def jpeg(picture: np.ndarray) -> BytesIO:
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=85)
    stream.seek(0)
    return stream


def test_classes_that_are_missing_are_told(tmp_path: Path) -> None:
    flat = save(tmp_path / "flat", drawn(3).images)
    found = check_source(f"folder:{flat}")
    assert found.as_json()["classes"] == {} and not found.refusals
    assert found.warnings == (
        "no picture has a class: labels must come from clusters or a file (labels.source)",
        "few pictures: evaluation.score.k, 10 neighbours by default, must be 2 or less",
    )
    some = replace(drawn(4), labels=np.array([0, 0, -1, 0]), class_names=("a", "b"))
    lines = check_images(some, {}, None).warnings
    assert lines == ("1 of 4 pictures have no class", "without a picture: b")
    one = replace(drawn(4), labels=np.zeros(4, np.int64), class_names=("a",))
    assert check_images(one, {}, None).warnings[0].startswith("there is one class: ")


def test_what_a_source_found_is_passed_on() -> None:
    told = Found({".heic": 8}, ("a.jpg",), "0..4095", splits={"a": 5}, warnings=("odd",))
    tree = check_images(replace(drawn(40), found=told), {}, None).as_json()
    assert (tree["passed_over"], tree["unreadable"], tree["splits"]) == ({".heic": 8}, ["a.jpg"], {"a": 5})
    assert (tree["value_range"], tree["warnings"]) == ("0..4095", ["odd"])


def test_a_few_pictures_are_kept_to_show() -> None:
    many = drawn(2 * SHOWN)
    twice = replace(many, images=many.images[np.arange(2 * SHOWN) % SHOWN])
    assert len(check_images(twice, {}, None).exact) == SHOWN
    thrice = replace(many, images=many.images[np.arange(2 * SHOWN) % (SHOWN // 2)])
    found = check_images(thrice, {}, None).exact
    assert (len(found), len(found.pictures)) == (3 * SHOWN // 2, SHOWN)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_named(pets: Path) -> None:
    (pets / "dog").chmod(0)
    try:
        assert check_source(f"folder:{pets}").as_json()["unreadable"] == ["dog"]
    finally:
        (pets / "dog").chmod(0o755)


def test_too_few_pictures_for_the_usual_neighbours_are_told(tmp_path: Path) -> None:
    assert EvaluationConfig().score.k == NEIGHBOURS
    folder = save(tmp_path / "few", drawn(11).images)
    assert not any("few pictures" in one for one in check_source(f"folder:{folder}").warnings)
    (folder / "00.png").unlink()
    assert check_source(f"folder:{folder}").warnings[-1].endswith("must be 9 or less")
