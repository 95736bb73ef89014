from __future__ import annotations

from sdviz.text import one_line, short_line, tree_hash, writable


def test_one_line_joins_lines_and_gaps() -> None:
    assert one_line(ValueError(" no\n  such\tfile ")) == "no such file"


def test_a_short_line_has_no_control_characters_and_at_most_120() -> None:
    assert short_line("a\x00b\nc") == "a b c"
    assert short_line("x" * 120) == "x" * 120
    assert short_line("x" * 121) == "x" * 119 + "…"


def test_a_tree_hash_does_not_depend_on_the_order_of_keys() -> None:
    # sha256sum of the text {"a": 1, "b": [2]}
    expected = "ae8a9a50524642753023cd4de34447191a8651989979c60bbcc5b0eeebb6e1dc"
    assert tree_hash({"a": 1, "b": [2]}) == tree_hash({"b": [2], "a": 1}) == expected


def test_bytes_that_are_no_utf8_are_written_as_escapes() -> None:
    assert writable("plain é") == "plain é"
    assert writable("caf\udce9") == "caf%E9" and writable("a\ud800") == "a?"
