from __future__ import annotations

import numpy as np
import pytest

from sdviz.baselines import BaselineError
from sdviz.baselines.neighbours import check_neighbours, nearest_squares
from tests.baselines import KNOWN, QUERIES


def test_squares_are_the_smallest_of_all_pairs() -> None:
    every = ((QUERIES[:, None].astype(float) - KNOWN[None]) ** 2).sum(2)
    found = nearest_squares("m", KNOWN, QUERIES, 4)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.sort(every, axis=1)[:, :4], rtol=1e-5)


def test_a_query_skips_the_references_of_its_own_id() -> None:
    known = np.array([[0.0], [1.0], [3.0]], np.float32)
    ids, asked = np.array(["a", "b", "c"]), np.array(["a", "new"])
    queries = np.array([[0.0], [0.0]], np.float32)
    assert nearest_squares("m", known, queries, 2, ids, asked).tolist() == [[1, 9], [0, 1]]
    # without ids on both sides no image knows itself
    assert nearest_squares("m", known, queries, 2, ids, None).tolist() == [[0, 1], [0, 1]]
    assert nearest_squares("m", known, queries, 2, None, asked).tolist() == [[0, 1], [0, 1]]


def test_too_few_references_are_one_line_with_the_method() -> None:
    check_neighbours("m", 3, 3)
    with pytest.raises(BaselineError, match="^m: 4 neighbours of 3 ID images: there are too few$"):
        check_neighbours("m", 4, 3)
    known, ids = np.eye(3, dtype=np.float32), np.array(["a", "b", "c"])
    assert nearest_squares("m", known, known, 3).shape == (3, 3)
    with pytest.raises(BaselineError, match="^m: 4 neighbours of 3 ID images: there are too few$"):
        nearest_squares("m", known, known, 4)
    with pytest.raises(BaselineError, match="^m: 3 neighbours of 3 ID images, one of them perhaps the image"):
        nearest_squares("m", known, known, 3, ids, ids)
