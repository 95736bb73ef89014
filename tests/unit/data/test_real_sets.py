"""Real image sets, where the machine has them."""

from __future__ import annotations

import numpy as np
import pytest

from sdviz import data


def need(name: str, split: str) -> None:
    if name not in data.names() or split not in data.splits(name):
        pytest.skip(f"{name} {split} is not under {data.data_root()}")


@pytest.mark.usefixtures("sdviz_data")
def test_cifar10_test() -> None:
    need("cifar10", "test")
    test = data.load("cifar10", "test")
    assert test.images.shape == (10_000, 32, 32, 3) and np.bincount(test.labels).tolist() == [1000] * 10
    assert test.class_names[3] == "cat" and len(test.class_names) == 10
    assert len(set(test.ids.tolist())) == 10_000 and test.ids[0].startswith("cifar10/test/")
    assert 100 < test.images.mean() < 140 and test.images.std() > 50

    rows = data.permutation(10_000, 3)[:64]
    some = data.load("cifar10", "test", limit=64, seed=3)
    assert some.ids.tolist() == test.ids[rows].tolist() and np.array_equal(some.images, test.images[rows])
    assert np.array_equal(some.labels, test.labels[rows])
    again = data.load("cifar10", "test", limit=16, seed=3)
    assert again.ids.tolist() == some.ids[:16].tolist() and np.array_equal(again.images, some.images[:16])


@pytest.mark.usefixtures("sdviz_data")
def test_every_set_that_is_there_opens() -> None:
    found = [name for name in data.names() if name not in data.BUILT_IN]
    if not found:
        pytest.skip(f"no image sets under {data.data_root()}")
    for name in found:
        for split in data.splits(name):
            some = data.load(name, split, limit=20)
            assert len(some) == 20 and some.images.shape[1:] == (32, 32, 3)
            assert some.labels.max() < len(some.class_names)
