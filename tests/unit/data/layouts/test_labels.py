from __future__ import annotations

import numpy as np
import pytest

from sdviz.data.imageset import DataError
from sdviz.data.layouts.labels import check_names, checked_labels, class_words, numbered


def test_words_are_sorted_and_numbers_among_them_by_value() -> None:
    assert class_words(["dog", "cat", None, "", "dog"]) == ("cat", "dog")
    assert class_words(["10", "9", "-1"]) == ("-1", "9", "10")
    assert numbered(["dog", None, "cat", ""], ("cat", "dog")).tolist() == [1, -1, 0, -1]


def test_numbers_are_whole_and_within_the_classes() -> None:
    labels, names = checked_labels("f", np.array([2.0, np.nan, 0.0]), None)
    assert labels.tolist() == [2, -1, 0] and names == ("0", "1", "2")
    assert checked_labels("f", np.array([]), None)[1] == ()
    for value, given in ((0.5, None), (-2.0, None), (1.0, ("a",)), (1e9, None)):
        with pytest.raises(DataError, match="f: label .* in row 0 is not a whole number"):
            checked_labels("f", np.array([value]), given)


def test_a_class_name_stands_once() -> None:
    assert check_names("f", ["a", 1]) == ("a", "1")
    with pytest.raises(DataError, match="two classes are called 'a'"):
        check_names("f", ["a", "b", "a"])
