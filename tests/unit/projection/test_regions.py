from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path

from sdviz.projection import inside, project


@pytest.mark.parametrize("corners", [3, 4, 9, 60])
def test_the_same_points_as_matplotlib_finds(corners: int) -> None:
    rng = np.random.default_rng(corners)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    polygon = rng.uniform(0.3, 1.0, (corners, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    points = rng.uniform(-1.2, 1.2, (3000, 2))
    found = inside(points, polygon)
    assert np.array_equal(found, Path(polygon).contains_points(points))
    assert 0 < found.sum() < 3000


def test_a_region_that_crosses_itself_is_empty_where_it_winds_twice() -> None:
    star = np.array([[np.cos(a), np.sin(a)] for a in np.arange(5) * 4 * np.pi / 5])
    assert inside(np.array([[0.0, 0.0], [0.8, 0.0], [2.0, 0.0]]), star).tolist() == [False, True, False]


@pytest.mark.parametrize("corners", [0, 1, 2])
def test_less_than_a_triangle_holds_nothing(corners: int) -> None:
    assert not inside(np.zeros((4, 2)), np.ones((corners, 2))).any()


def test_a_turned_layout_is_seen_from_its_side() -> None:
    points = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
    assert project(points, np.array([[0, 0, 1], [0, 1, 0]])).tolist() == [[3, 2], [6, 5]]
