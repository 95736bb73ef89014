from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdviz.data.imageset import DataError
from sdviz.data.layouts.tree import is_system, suffix_of, walk

SUFFIXES = frozenset([".png", ".jpg"])


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir", ".@__thumb", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information",
        "__MACOSX", ".Trashes", ".Spotlight-V100", ".fseventsd", ".thumbnails", "lost+found", ".Trash-1000",
        ".picasaoriginals", "Thumbnails", "_thumbs", "RECYCLE.BIN", "FOUND.001", "TrashBox",
        "Catalog Previews.lrdata", "Photos Library.photoslibrary", ".ipynb_checkpoints",
    ],
)  # fmt: skip
def test_a_system_folder_is_passed_over_and_all_its_files_counted(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "cat" / "1.png")
    for inside in ("1.jpg/SYNOPHOTO_THUMB_M.jpg", "deep/er/2.png"):
        touch(tmp_path / "cat" / name / inside)
    found = walk(tmp_path, SUFFIXES)
    assert found.files == [("cat", "1.png")] and found.folders == [("cat",)]
    assert found.passed_over == {name: 2} and is_system(name.upper())


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.PNG", "b.heic", "c.HEIC", "Thumbs.db", ".DS_Store", "LICENSE", "._a.png"):
        touch(tmp_path / name)
    found = walk(tmp_path, SUFFIXES)
    assert found.files == [("a.PNG",)]
    assert found.passed_over == {".heic": 2, ".db": 1, ".DS_Store": 1, "LICENSE": 1, ".png": 1}
    assert found.warnings == []
    touch(tmp_path / ".hidden.png")
    assert walk(tmp_path, SUFFIXES).warnings == ["hidden files, passed over: 1, such as .hidden.png"]
    assert suffix_of("a.tar.GZ") == ".gz"


def test_classes_that_look_like_system_folders_are_kept(tmp_path: Path) -> None:
    for name in ("$5", "trash", "found.things", "thumbs_up", "cache"):
        touch(tmp_path / name / "1.png")
    assert len(walk(tmp_path, SUFFIXES).files) == 5


def test_links_lead_to_no_place_twice(tmp_path: Path) -> None:
    top, other = tmp_path / "top", tmp_path / "other"
    for path in (top / "a" / "1.png", top / "b" / "2.png", other / "3.png"):
        touch(path)
    (top / "a" / "to_b").symlink_to(top / "b")
    (top / "b" / "to_a").symlink_to(top / "a")
    (top / "up").symlink_to(tmp_path)
    (top / "out").symlink_to(other)
    (top / "out_again").symlink_to(other)
    (top / "self").symlink_to(top / "self")
    found = walk(top, SUFFIXES)
    assert found.files == [("a", "1.png"), ("b", "2.png"), ("out", "3.png")]
    assert found.folders == [("a",), ("b",), ("out",)]
    assert sorted(found.repeated) == ["a/to_b", "b/to_a", "out_again", "up"]
    assert found.warnings == ["links to folders that are read already, passed over: 4, such as a/to_b"]


def test_names_in_any_bytes_are_found_and_told_as_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    (tmp_path / os.fsdecode(b"x.\xff")).touch()
    found = walk(tmp_path, SUFFIXES)
    assert [os.fsencode(one) for (one,) in found.files] == [b"caf\xe9.png"]
    assert found.passed_over == {".%FF": 1}


def test_the_whole_file_system_is_no_folder_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is the whole file system"):
        walk(Path("/.."), SUFFIXES)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        walk(tmp_path / "none", SUFFIXES)
