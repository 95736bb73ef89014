from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdviz.data.roles import absolute_source, clash, is_inside, ood_split, test_split
from tests.tiny_runs import write_pictures, write_splits

test_split.__test__ = False  # type: ignore[attr-defined]  # a function of the package


def test_absolute_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_source("shapes") == "shapes"
    assert absolute_source("folder:pets") == f"folder:{tmp_path}/pets"
    assert absolute_source("parquet:/a/b.parquet") == "parquet:/a/b.parquet"
    assert absolute_source("folder:") == "folder:"


@pytest.mark.usefixtures("data_root")
def test_an_ood_set_of_several_splits_is_its_test_split() -> None:
    assert ood_split("shapes") == ("shapes", "test")
    assert ood_split("shapes:train") == ("shapes", "train")
    assert ood_split("digits") == ("digits", None)
    assert ood_split("folder:/a/b") == ("folder:/a/b", None)


@pytest.mark.usefixtures("data_root")
def test_the_split_to_test_on() -> None:
    assert test_split("shapes", None) == test_split("shapes", "val") == "test"
    assert test_split("shapes", "test") is None
    assert test_split("digits", None) is None
    assert test_split("folder:/a/b", None) is None


def test_paths_inside_others() -> None:
    assert is_inside("folder:/a/b", "folder:/a") and is_inside("folder:/a/b/../c/d", "folder:/a/c")
    assert not is_inside("folder:/a", "folder:/a/b") and not is_inside("folder:/ab", "folder:/a")
    # a Parquet file is no picture of the folder that it is in
    assert not is_inside("parquet:/a/b.parquet", "folder:/a") and not is_inside("cifar10", "cifar100")


@pytest.fixture
def between(tmp_path: Path, data_root: Path) -> Callable[[str, str], str | None]:
    """What is said of two sets in tmp_path: pets with red and blue, links and copies of them."""
    pets = write_pictures(tmp_path / "pets", 3)
    write_pictures(tmp_path / "other", 3, seed=1)
    shutil.copytree(pets, tmp_path / "copied")
    (tmp_path / "link").symlink_to(pets)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "red").symlink_to(pets / "red")
    for kind, make in (("hard", os.link), ("soft", os.symlink)):
        (tmp_path / kind).mkdir()
        for path in (pets / "red").iterdir():
            make(path, tmp_path / kind / f"other-{path.name}")
    (tmp_path / "other" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    write_splits(data_root, "cats", {"train": np.zeros((2, 8, 8, 3), np.uint8)})
    (tmp_path / "same.parquet").symlink_to(data_root / "cats_train.parquet")
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
    os.link(tmp_path / "a.npy", tmp_path / "b.npy")

    def say(name: str, other: str) -> str | None:
        def split(one: str) -> list[str]:
            return [{"cats": "train", "digits": "test"}.get(one, "all")]

        name, other = (one.format(tmp_path) for one in (name, other))
        line = clash(name, split(name), other, split(other))
        return line and line.replace(f"{tmp_path}/", "")

    return say


INSIDE = "lies inside"


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("folder:{0}/pets", "folder:{0}/pets", "are the same images"),
        ("folder:{0}/pets", "folder:{0}/link", "are the same images"),
        ("folder:{0}/pets/red", "folder:{0}/pets", "folder:pets/red lies inside folder:pets"),
        ("folder:{0}/pets", "folder:{0}/pets/red", "folder:pets/red lies inside folder:pets"),
        ("folder:{0}/link/red", "folder:{0}/pets", "folder:link/red lies inside folder:pets"),
        ("folder:{0}/around", "folder:{0}/pets", "folder:around lies inside folder:pets"),
        ("folder:{0}/pets/red", "folder:{0}/around", "are the same images"),
        ("folder:{0}/hard", "folder:{0}/pets", "folder:hard lies inside folder:pets"),
        ("folder:{0}/pets", "folder:{0}/soft", "folder:soft lies inside folder:pets"),
        ("cats", "parquet:{0}/same.parquet", "are the same images"),
        ("npy:{0}/a.npy", "npy:{0}/b.npy", "are the same images"),
        # other files, even if they are equal
        ("folder:{0}/pets", "folder:{0}/copied", None),
        ("folder:{0}/pets", "folder:{0}/other", None),
        ("folder:{0}/other", "folder:{0}/other", "are the same images"),
        ("cats", "digits", None),
        ("digits", "folder:{0}/pets", None),
    ],
)
def test_two_names_for_the_same_files(
    between: Callable[[str, str], str | None], name: str, other: str, said: str | None
) -> None:
    line = between(name, other)
    assert (line is None) == (said is None)
    assert said is None or said in str(line)


def test_the_larger_of_two_sets_in_one_place_is_around_the_other(tmp_path: Path) -> None:
    for kind in ("good", "crack", "hole"):
        write_pictures(tmp_path / "test" / kind, 2, seed=len(kind))
    write_pictures(tmp_path / "train" / "good", 2, seed=9)
    crack, defects = f"folder:{tmp_path}:test/crack", f"folder:{tmp_path}:defects"
    said = f"{crack} lies inside {defects}: its images would have two roles"
    assert clash(defects, ["defects"], crack, ["test/crack"]) == said
    assert clash(crack, ["test/crack"], defects, ["defects"]) == said


def test_splits_in_one_file_are_other_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, 8, 8, 3)), test_images=np.ones((2, 8, 8, 3)))
    name = f"npz:{tmp_path}/a.npz"
    assert clash(f"{name}:test", ["test"], f"{name}:train", ["train"]) is None
    line = clash(f"{name}:test", ["test"], name, ["train", "test"])
    assert line == f"{name}:test lies inside {name}: its images would have two roles"
