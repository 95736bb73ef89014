from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdviz.files import leftovers, remove_leftovers, replacing, write_atomically


def test_text_and_bytes_take_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    write_atomically(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half", "utf-8")
        raise RuntimeError
    assert path.read_text("utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with replacing(path) as partial:
        partial.write_text("new", "utf-8")
        assert path.read_text("utf-8") == "old" and partial.suffix == ".txt"
    assert path.read_text("utf-8") == "new"


def test_what_killed_writers_left_is_found_and_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "deep" / "a.tar.gz") as partial:
        partial.write_bytes(b"half")
        shutil.copy(partial, kept := partial.with_name(partial.name.replace(".a.", ".b.")))
        raise KeyboardInterrupt
    for other in (".hidden", "a.partial", "a.partial.txt"):
        (tmp_path / other).write_text("not ours")
    assert leftovers(tmp_path) == [kept]
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".hidden", "a.partial", "a.partial.txt", "deep"]
