from __future__ import annotations

from pathlib import Path

import pytest

from sdviz.files import replacing, write_atomically


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
