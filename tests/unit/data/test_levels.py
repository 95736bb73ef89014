from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sdviz.data.imageset import DataError
from sdviz.data.levels import BYTE, SAMPLE, Extremes, Kind, Levels, ValueRange, likely_range, parse_range


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("int", 0, 200, "0..255"),
        ("int", 0, 256, "0..1023"),
        ("int", 3, 1024, "0..4095"),
        ("int", 0, 4096, "0..65535"),
        ("int", -1024, 3071, "-1024..3071"),
        ("int", 0, 70_000, "0..70000"),
        ("float", 0, 1, "0..1"),
        ("float", -0.01, 1.02, "0..1"),
        ("float", -1, 0.98, "-1..1"),
        ("float", -0.3, 0.9, "-1..1"),
        ("float", 0, 255, "0..255"),
        ("float", 0, 4095, "0..4095"),
        ("float", 0, 65535, "0..65535"),
        ("float", -2.1, 2.6, "-2.1..2.6"),
        ("float", -3, 257, "0..255"),
        ("float", 0, 0, "0..1"),
        ("float", -5, -2, "-5..-2"),
        ("float", 7, 7, "0..255"),
    ],
)
def test_the_range_that_values_most_likely_have(kind: Kind, low: float, high: float, expected: str) -> None:
    assert str(likely_range(kind, low, high)) == expected


def test_a_range_is_read_from_its_text() -> None:
    assert parse_range("auto") is None
    assert parse_range("0..4095") == ValueRange(0, 4095) and parse_range("-1..1") == ValueRange(-1, 1)
    assert parse_range("0.5..1.5") == ValueRange(0.5, 1.5) and str(ValueRange(0.5, 1.5)) == "0.5..1.5"
    for bad in ("", "0-255", "255..0", "1..1", "0..", "0..inf", "0..1e3", "٠..٩", "0..1\n", "9" * 400 + "..1"):
        with pytest.raises(DataError, match="range must be auto or LOW..HIGH"):
            parse_range(bad)


def test_values_become_grey_levels() -> None:
    assert ValueRange(0, 4095).grey_levels(np.array([0, 16, 2048, 4095, 5000])).tolist() == [
        0,
        1,
        128,
        255,
        255,
    ]
    assert ValueRange(-1, 1).grey_levels(np.array([-1, 0, 1, -3])).tolist() == [0, 128, 255, 0]


def of(*pictures: Extremes) -> Iterator[Extremes]:
    return iter(pictures)


def test_the_range_is_the_sets_whichever_picture_is_read() -> None:
    dark, bright = Extremes("int", 0, 300), Extremes("int", 5, 4000)
    for first in (dark, bright):
        levels = Levels(None, lambda: of(dark, Extremes("uint8", 0, 9), bright))
        assert str(levels.take(first)) == "0..4095" and levels.stated() == "0..4095"
    # a later picture beyond the pictures that were looked at clips, and is told
    levels = Levels(None, lambda: of(*[dark] * SAMPLE, bright))
    levels.take(bright)
    (line,) = levels.warnings()
    assert line.startswith("1 pictures clip, with values outside 0..1023: values lie in 5..4000")


def test_a_given_range_is_of_deeper_pictures() -> None:
    wide, byte = Extremes("int", 0, 4000), Extremes("uint8", 0, 250)
    levels = Levels(ValueRange(0, 65535), lambda: of(wide, byte))
    assert levels.take(wide) == ValueRange(0, 65535) and levels.take(byte) == BYTE
    assert any(
        line.startswith("values lie in 0..4000, under an eighth of 0..65535") for line in levels.warnings()
    )
    # within 8 bits it holds where all pictures keep to it
    masks = Extremes("uint8", 0, 1)
    assert Levels(ValueRange(0, 1), lambda: of(masks)).take(masks) == ValueRange(0, 1)
    levels = Levels(ValueRange(0, 1), lambda: of(masks, byte))
    assert levels.take(masks) == BYTE
    assert "pictures of 8 bits are read as 0..255, not as 0..1" in list(levels.warnings())


def test_what_may_be_a_mistake_is_told() -> None:
    def told(*pictures: Extremes) -> list[str]:
        levels = Levels(None, lambda: of(*pictures))
        for one in pictures:
            levels.take(one)
        return list(levels.warnings())

    assert told(Extremes("uint8", 0, 255)) == [] == told(Extremes("int", 0, 4000))
    assert told(Extremes("uint8", 0, 16)) == [
        "values lie in 0..16, under an eighth of 0..255: nearly flat pictures; data.range takes another"
    ]
    (line,) = told(Extremes("int", -1024, 3071))
    assert line == "values lie in -1024..3071, which is no usual range: taken as it is; data.range fixes it"
    assert told(Extremes("uint8", 0, 255), Extremes("float", 0, 1))[0] == (
        "pictures of several depths, read as 0..1, 0..255: data.range takes one range"
    )
    assert Levels(None, lambda: of()).stated() == "0..255"
