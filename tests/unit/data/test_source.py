from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdviz.data.imageset import DataError, ImageSet
from sdviz.data.source import (
    Choose,
    Source,
    address,
    data_root,
    exists,
    no_pictures,
    only_asked,
    path_in,
    reading_of,
    row_ids,
    sample_order,
)
from sdviz.data.stack import Reading


class Greys(Source):
    """Ten images of 4 px, row i of grey level i; as a kind, their ids end in a hash."""

    def splits(self, name: str) -> tuple[str, ...]:
        return ("all",)

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        rows = choose(10)
        images = np.tile(rows.astype(np.uint8)[:, None, None, None], (1, 4, 4, 3))
        ids = row_ids(self.id_prefix(name, split), rows)
        if self.kinds and reading.pictures:
            ids = np.array([f"{one}@{row}" for one, row in zip(ids, rows, strict=True)])
        return ImageSet(
            name, split, images if reading.pictures else no_pictures(len(rows)), rows % 2, ids, ("a", "b")
        )

    def count(self, name: str, split: str) -> int:
        return 10


class OfPath(Greys):
    kinds = ("greys",)


def test_the_root_is_the_variable_or_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDVIZ_DATA", "/some/where")
    assert data_root() == Path("/some/where")
    for unset in (lambda: monkeypatch.setenv("SDVIZ_DATA", ""), lambda: monkeypatch.delenv("SDVIZ_DATA")):
        unset()
        assert data_root() == Path("data")


def test_a_name_with_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert path_in("folder:~/pets:old") == Path("/home/me/pets:old")
    for name in ("folder:", "folder"):
        with pytest.raises(DataError, match=f"^{name} needs a path, as in folder:PATH$"):
            path_in(name)


def test_ids_are_rows_of_at_least_five_digits() -> None:
    assert row_ids("s/test/", np.array([7, 123456])).tolist() == ["s/test/00007", "s/test/123456"]
    assert row_ids("s/", np.array([], int)).dtype.kind == "U"


def test_find_reads_only_the_rows_that_ids_name() -> None:
    ids = np.array(["s/test/00007", "s/test/00002", "s/test/00010", "s/test/x", "s/test/-1", "s/test/\u0663"])
    found = Greys().find("s", "test", ids, Reading(4, "raise", True, None, "crop"))
    assert found.ids.tolist() == ["s/test/00002", "s/test/00007"]
    assert found.images[:, 0, 0, 0].tolist() == [2, 7] and found.labels.tolist() == [0, 1]


def test_without_pictures_the_hash_of_an_asked_id_is_taken_as_given() -> None:
    ids = np.array(["g/all/00003@wrong", "g/all/00001@1"])
    source = OfPath()
    assert source.prefixes == ("greys:",)
    with_pictures = source.find("g", "all", ids, Reading(4, "raise", True, None, "crop"))
    assert with_pictures.ids.tolist() == ["g/all/00001@1", "g/all/00003@3"]
    without = source.find("g", "all", ids, Reading(4, "raise", False, None, "crop"))
    assert without.ids.tolist() == ["g/all/00001@1", "g/all/00003@wrong"]
    assert without.images.shape == (2, 0, 0, 3)


def test_a_name_may_say_a_split_and_options(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "a:test?x=y").mkdir()
    pets = tmp_path / "pets"
    where = address(f"folder:{pets}:test/crack")
    assert (where.path, where.split, where.options) == (pets, "test/crack", {})
    where = address(f"parquet:{pets}:test?label=breed&image=photo")
    assert (where.path, where.split, where.options) == (pets, "test", {"label": "breed", "image": "photo"})
    assert address(f"parquet:{tmp_path}/*.parquet:test").split == "test"
    # what exists as it stands is a path
    assert address(f"folder:{tmp_path}/a:test?x=y").path == tmp_path / "a:test?x=y"
    assert address("folder:/nowhere/pets:old").path == Path("/nowhere/pets:old")
    assert only_asked(f"folder:{pets}", ("train", "test")) == ("train", "test")
    assert only_asked(f"folder:{pets}:Training", ("train", "test")) == ("train",)
    with pytest.raises(DataError, match="no split 'x'; it has train, test"):
        only_asked(f"folder:{pets}:x", ("train", "test"))


@pytest.mark.parametrize("text", ["~nosuchuser", "x" * 5000, "\0", "a\nb", "\udcff" * 300])
def test_what_can_be_no_path_is_no_stranger(text: str) -> None:
    try:
        assert not exists(path_in(f"folder:{text}"))
    except DataError as error:
        assert str(error) == "folder:~nosuchuser: no such user"


def test_any_error_of_a_library_becomes_one_line() -> None:
    for error, told in [
        (ValueError("two\nlines"), "f: two"),
        (OSError(2, "No such file", "x"), "f: No such file"),
        (RecursionError(), "f: RecursionError"),
        (ValueError(f"bad {object()}"), "f: ValueError"),
        (DataError("mine"), "mine"),
    ]:
        with pytest.raises(DataError) as caught, reading_of("f"):
            raise error
        assert str(caught.value) == told
    assert sorted(sample_order(9).tolist()) == list(range(9))
