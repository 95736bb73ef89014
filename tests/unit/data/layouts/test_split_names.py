from __future__ import annotations

import pytest

from sdviz.data.layouts.split_names import in_order, meant, split_of, split_within


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN", "train"),
        ("val", "val"),
        ("Valid", "val"),
        ("validation", "val"),
        ("test", "test"),
        ("Testing", "test"),
        ("training_set", "train"),
        ("seg_test", "test"),
        ("train2017", "train"),
        ("test images", "test"),
        ("trainval", "train"),
        ("Eval", "val"),
        ("freight train", None),
        ("trains", None),
        ("train_test", None),
        ("cat", None),
        ("", None),
    ],
)
def test_a_folder_means_a_split_only_if_it_says_nothing_else(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_split_within_a_longer_name() -> None:
    assert split_within("cifar10-train") == ("cifar10", "train")
    assert split_within("validation") == ("", "val")
    assert split_within("train_test") == ("train_test", None)


def test_a_split_is_asked_for_in_any_spelling() -> None:
    assert meant("Training", ("train", "test")) == "train"
    assert meant("validation", ("val",)) == "val" and meant("val", ("validation",)) == "validation"
    assert meant("VAL", ("val", "valid")) == "val" and meant("dev", ("val", "valid")) is None
    assert meant("test/Crack", ("test", "test/crack")) == "test/crack"
    assert meant("all", ("train",)) is None
    assert in_order(["zoo", "test", "val", "train"]) == ("train", "val", "test", "zoo")
