from __future__ import annotations

import hashlib

import numpy as np
from sklearn.datasets import load_digits

from sdviz import data


def test_digits_are_pinned_and_whole() -> None:
    digits = data.load("digits")
    assert digits.images.shape == (1797, 32, 32, 3) and digits.split == "test"
    assert digits.ids[17] == "digits/test/00017" and digits.class_names == tuple("0123456789")
    assert np.array_equal(digits.labels, load_digits().target)
    assert (
        hashlib.sha256(digits.images.tobytes()).hexdigest()
        == "584de9eba0ee1fbdb09a5fcf7e28aa9d0faf43f2d3c6f18a6d9a26126569a680"
    )


def test_enlarging_is_linear_interpolation() -> None:
    source = load_digits().images[:20]
    big = data.load("digits").images[:20]
    assert np.array_equal(big[..., 0], big[..., 1]) and np.array_equal(big[..., 0], big[..., 2])
    # numpy's own, one axis after the other, at the same pixel centres
    at = (np.arange(32) + 0.5) / 4 - 0.5
    rows = np.apply_along_axis(lambda line: np.interp(at, np.arange(8), line), 1, source)
    both = np.apply_along_axis(lambda line: np.interp(at, np.arange(8), line), 2, rows)
    assert np.abs(big[..., 0] - both * 255 / 16).max() <= 0.5001


def test_limit_takes_the_first_of_the_permutation() -> None:
    whole, some = data.load("digits"), data.load("digits", "test", limit=6, seed=2)
    rows = data.permutation(1797, 2)[:6]
    assert some.ids.tolist() == whole.ids[rows].tolist()
    assert np.array_equal(some.images, whole.images[rows]) and np.array_equal(some.labels, whole.labels[rows])
