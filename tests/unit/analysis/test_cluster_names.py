from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdviz.analysis.cluster_names import NamesError, read_names, rename, shown_names
from sdviz.files import leftovers

USUAL = ("disk", "ring", "square")


def test_a_name_is_kept_by_bundle_and_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "names.json"
    assert read_names(file, "a") == {}
    assert rename(file, "a", 1, "  the   ring\nthing ", USUAL) == ("disk", "the ring thing", "square")
    assert rename(file, "b", 1, "other", USUAL)[1] == "other"
    assert shown_names(USUAL, read_names(file, "a")) == ("disk", "the ring thing", "square")
    assert rename(file, "a", 1, "ring", USUAL) == USUAL
    assert rename(file, "b", 1, "", USUAL) == USUAL
    assert json.loads(file.read_text()) == {}
    assert not leftovers(file.parent)


def test_names_that_mislead_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    with pytest.raises(NamesError, match="another cluster is called 'disk'"):
        rename(file, "a", 1, "disk", USUAL)
    with pytest.raises(NamesError, match="at most 40 characters, this one has 41"):
        rename(file, "a", 1, "x" * 41, USUAL)
    assert rename(file, "a", 0, "round", USUAL)[0] == "round"
    # what the other has left is free
    assert rename(file, "a", 1, "disk", USUAL) == ("round", "disk", "square")
    with pytest.raises(NamesError, match="another cluster"):
        rename(file, "a", 0, "", USUAL)


def test_a_damaged_file_is_passed_over_and_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    for text in ("{", "[1]"):
        file.write_text(text)
        assert read_names(file, "a") == {}
        with pytest.raises(NamesError, match="damaged: mend or delete it"):
            rename(file, "a", 1, "x", USUAL)
        assert file.read_text() == text
    file.write_text(json.dumps({"a": {"1": "x", "two": "y", "2": 5}}))
    assert read_names(file, "a") == {1: "x"}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(NamesError, match=r"names\.json cannot be written: "):
        rename(tmp_path / "runs" / "names.json", "a", 1, "x", USUAL)


def test_two_people_at_once_lose_no_name(tmp_path: Path) -> None:
    file, usual = tmp_path / "names.json", tuple(f"cluster {i}" for i in range(24))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: rename(file, "a", i, f"name {i}", usual), range(24)))
    assert read_names(file, "a") == {i: f"name {i}" for i in range(24)}
