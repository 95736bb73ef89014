from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

COLOURS = np.array([(210, 50, 60), (50, 180, 70), (40, 60, 200), (220, 210, 60)])


@pytest.fixture
def coloured() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Makes pictures of a few colours, uint8 (n,8,8,3) with noise on them, and which colour each has."""

    def make(n: int = 48, n_colours: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % n_colours
        pixels = COLOURS[labels][:, None, None] + rng.integers(-30, 31, (n, 8, 8, 3))
        return np.clip(pixels, 0, 255).astype(np.uint8), labels.astype(np.int64)

    return make
