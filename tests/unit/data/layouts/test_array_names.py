from __future__ import annotations

import numpy as np
import pytest

from sdviz.data.imageset import DataError
from sdviz.data.layouts.array_names import (
    ArrayNames,
    arrays_by_split,
    channels_of,
    is_numeric,
    may_be_images,
    only_images,
)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["images", "labels"], {"all": ("images", "labels")}),
        (["x", "y"], {"all": ("x", "y")}),
        (
            ["x_train", "y_train", "x_test", "y_test"],
            {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
        ),
        (
            ["train_images", "train_labels", "val_images", "val_labels"],
            {"train": ("train_images", "train_labels"), "val": ("val_images", "val_labels")},
        ),
        (["X_train", "trainY"], {"train": ("X_train", "trainY")}),
        (["S", "features"], {}),
    ],
)
def test_arrays_are_known_by_their_names(names: list[str], expected: dict[str, tuple[str, str]]) -> None:
    assert arrays_by_split(names) == {split: ArrayNames(*of) for split, of in expected.items()}


def test_where_the_channels_stand() -> None:
    for shape, place in [
        ((5, 8, 9, 3), "last"),
        ((5, 3, 8, 9), "first"),
        ((5, 8, 9, 1), "last"),
        ((5, 1, 8, 9), "first"),
        ((5, 8, 9, 4), "last"),
        ((5, 8, 9), "none"),
        ((5, 3, 9, 3), "last"),
    ]:
        assert channels_of("f", shape) == place
    for bad in ((8, 9), (5, 8, 9, 2), (5, 0, 8, 3)):
        with pytest.raises(DataError, match="f: images must be"):
            channels_of("f", bad)
    with pytest.raises(DataError, match=r"f: \(8,9,3\) may be one picture or 8"):
        channels_of("f", (8, 9, 3))


def test_the_only_array_that_looks_like_pictures() -> None:
    pictures = np.zeros((2, 8, 8, 3), np.float32)
    assert only_images("f", {"a": np.zeros(3), "outliers": pictures}) == "outliers"
    for arrays in ({"a": np.zeros(3)}, {"a": pictures, "b": pictures}):
        with pytest.raises(DataError, match="of images"):
            only_images("f", arrays)
    assert may_be_images(pictures) and not may_be_images(pictures[0])
    assert is_numeric(pictures > 0) and not is_numeric(np.array(["a"]))
