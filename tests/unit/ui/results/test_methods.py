from __future__ import annotations

import numpy as np

from sdviz.ui.pictures import NEUTRAL_COLOUR
from sdviz.ui.results.methods import COLOURS, line_of
from sdviz.ui.theme import DARK_BACKGROUND, LIGHT_BACKGROUND, role_colours


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


def luminance(colour: str) -> float:
    """By WCAG 2.2."""
    part = rgb(colour) / 255
    return float(
        np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    )


def test_methods_have_lines_of_their_own_in_no_sets_colour() -> None:
    many = range(9)
    roles = {f"{role}{i}": role for role in ("id", "near", "far", "validation", "sd") for i in many}
    of_sets = {*role_colours(roles).values(), NEUTRAL_COLOUR}
    for colour in COLOURS:
        assert min(np.linalg.norm(rgb(colour) - rgb(one)) for one in of_sets) > 30, colour
        for ground in (DARK_BACKGROUND, LIGHT_BACKGROUND):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, ground)
    # ours and twelve others: no two lines are alike
    assert len({line_of(row) for row in range(13)}) == 13
