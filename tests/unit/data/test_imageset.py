from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdviz.data.found import Found
from sdviz.data.imageset import DataError, ImageSet, chosen_rows, permutation


def make(n: int = 4) -> ImageSet:
    images = np.arange(n * 12, dtype=np.uint8).reshape(n, 2, 2, 3)
    labels = np.array([0, 1, -1, 1], np.int64)[:n]
    return ImageSet("set", "all", images, labels, np.array([f"set/{i}" for i in range(n)]), ("cat", "dog"))


def test_permutation_is_the_same_everywhere_and_depends_on_the_seed() -> None:
    assert permutation(10, 0).tolist() == [2, 4, 6, 8, 5, 1, 7, 0, 9, 3]
    assert sorted(permutation(1000, 3).tolist()) == list(range(1000))
    assert not np.array_equal(permutation(1000, 3), permutation(1000, 4))
    assert np.array_equal(permutation(50, -1), permutation(50, np.int64(-1)))  # type: ignore[arg-type]


def test_a_permutation_has_no_order_of_its_own() -> None:
    order = permutation(20_000, 0)
    assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.03
    assert abs(np.corrcoef(order, permutation(20_000, 1))[0, 1]) < 0.03


def test_chosen_rows_is_a_prefix() -> None:
    assert chosen_rows(5, None, 7).tolist() == [0, 1, 2, 3, 4]
    assert chosen_rows(100, 10, 7).tolist() == permutation(100, 7)[:10].tolist()
    assert len(chosen_rows(5, 50, 7)) == 5


def test_take_and_label_name() -> None:
    some = make().take(np.array([3, 2]))
    assert some.ids.tolist() == ["set/3", "set/2"] and len(some) == 2
    assert [some.label_name(i) for i in range(2)] == ["dog", "unlabelled"]
    assert make().take(np.array([True, False, False, False])).images.tolist() == make().images[:1].tolist()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", np.zeros((4, 2, 2, 3), np.float32), "uint8"),
        ("images", np.zeros((4, 2, 2), np.uint8), "uint8"),
        ("labels", np.zeros(3, np.int64), "4 images"),
        ("labels", np.array([0, 1, 2, 0]), "outside -1..1"),
        ("labels", np.array([0, 1, -2, 0]), "outside -1..1"),
    ],
)
def test_an_inconsistent_set_is_refused(field: str, value: np.ndarray, message: str) -> None:
    fields = {**vars(make()), field: value}
    with pytest.raises(DataError, match=message):
        ImageSet(**fields)


def test_what_a_source_found_stays_with_its_pictures() -> None:
    told = replace(make(), found=Found(passed_over={".heic": 8}, value_range="0..4095"))
    assert told.take(np.array([1])).found == told.found
    assert make().found == Found() and make().found.value_range == "0..255"


def test_an_error_is_one_line_of_text_at_most_300_long() -> None:
    error = DataError("x\ny\udce9\x00" + "z" * 1000)
    assert str(error).startswith("x y%E9 zzz") and len(str(error)) <= 300
