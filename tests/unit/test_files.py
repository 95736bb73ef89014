from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sdviz.files import (
    MAX_DEPTH,
    MAX_JSON_BYTES,
    leftovers,
    parse_json,
    read_json,
    remove_leftovers,
    replacing,
    write_atomically,
)


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested too deeply"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested too deeply"),
        ("9" * 5_000, "a whole number of 5000 digits"),
        (str(2**63), "a whole number of 19 digits"),
        ("{", "Expecting property name"),
        (b"\xff\xfe\xff", "codec can't decode"),
        (b" " * (MAX_JSON_BYTES + 1), "more than 16,000,000 bytes"),
    ],
)
def test_hostile_json_is_a_value_error(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_within_the_limits_is_read_as_it_is(tmp_path: Path) -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deep) == json.loads(deep)
    tree = {"a": [1, -1.5, None, True, "ä", {"b": 1 - 2**63, "c": 2**63 - 1}], "d": "[" * 1_000}
    (tmp_path / "a.json").write_text(json.dumps(tree), "utf-8")
    assert read_json(tmp_path / "a.json") == tree


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '{"\\udfff": 1}', b'["\xed\xa0\x80"]', '["a", {"b": "\\uD83D x"}]']
)
def test_half_a_surrogate_pair_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        parse_json(text)


def test_text_of_any_language_is_read() -> None:
    for text in ('["é \\u00e9 \\ud83d\\ude00 😀"]', '["é \\u00e9 \\ud83d\\ude00 😀"]'.encode()):
        assert parse_json(text) == ["é é 😀 😀"]
