from __future__ import annotations

from pathlib import Path

import pytest

from sdviz.data.imageset import DataError
from sdviz.data.layouts.shards import files_of, name_and_split, siblings


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(found: dict[str, tuple[Path, ...]]) -> dict[str, list[str]]:
    return {split: [path.name for path in paths] for split, paths in found.items()}


def test_one_file_has_the_split_in_its_name() -> None:
    assert name_and_split(Path("x/pets_test.parquet")) == ("pets", "test")
    assert name_and_split(Path("x/pets.parquet")) == ("pets", "all")
    assert name_and_split(Path("test.parquet")) == ("test", "all")


def test_a_folder_of_shards_as_exported(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "data/train-00001-of-00002.parquet",
        "data/train-00000-of-00002.parquet",
        "data/validation-00000-of-00001-0123456789abcdef.parquet",
        "data/.cache/train-00009-of-00002.parquet",
        "data/._train-00000-of-00002.parquet",
        "README.md",
    )
    assert names(files_of(tmp_path)) == {
        "train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        "val": ["validation-00000-of-00001-0123456789abcdef.parquet"],
    }
    assert list(files_of(tmp_path / "data" / "train-*.parquet")) == ["train"]
    one, other = files_of(tmp_path)["train"]
    assert siblings(one) == (other,) and siblings(tmp_path / "pets.parquet") == ()


def test_splits_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet")
    assert names(files_of(tmp_path)) == {"train": ["0000.parquet", "0001.parquet"], "test": ["0000.parquet"]}
    touch(tmp_path, "other/train/0000.parquet")
    with pytest.raises(DataError, match="2 sets, such as default/test/0000.parquet, other/train/"):
        files_of(tmp_path)


def test_files_of_several_sets_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cifar10_train.parquet", "cifar10_test.parquet", "cifar100_test.parquet")
    with pytest.raises(DataError, match="holds 2 sets, such as .*: name one"):
        files_of(tmp_path)
    assert list(files_of(tmp_path / "cifar10_*.parquet")) == ["train", "test"]


def test_nothing_to_read(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path, "no .parquet files"),
        (tmp_path / "*.parquet", "no .parquet files"),
        (tmp_path / "none.parquet", "does not exist"),
    ]:
        with pytest.raises(DataError, match=message):
            files_of(path)
