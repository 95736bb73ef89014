from __future__ import annotations

import numpy as np
import pytest

from sdviz.analysis.methods import Method
from sdviz.baselines import BASELINES
from sdviz.evaluation.report import BaselineResult, Trial
from sdviz.pipeline.tuning import SCORE_SEARCH
from sdviz.ui.pictures import NEUTRAL_COLOUR
from sdviz.ui.results.methods import COLOURS, IMPORTED_COLOUR, OUTLIER_COLOUR, lines_of, settings_text
from sdviz.ui.theme import DARK_BACKGROUND, LIGHT_BACKGROUND, role_colours

NOTHING = BaselineResult(title="A", settings={}, results={}, means={})


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
    for colour in (*COLOURS, IMPORTED_COLOUR):
        assert min(np.linalg.norm(rgb(colour) - rgb(one)) for one in of_sets) > 30, colour
        for ground in (DARK_BACKGROUND, LIGHT_BACKGROUND):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, ground)
    # ours, twelve others and four imports: no two lines are alike, and imports do not change those of others
    own = [Method(f"m{i}", f"m{i}", NOTHING, {}) for i in range(12)]
    imports = [Method(f"i{i}", f"i{i}", NOTHING, {}, is_imported=True) for i in range(4)]
    lines = lines_of([*imports, *own])
    assert len({(OUTLIER_COLOUR, None), *lines}) == 17
    assert lines[4:] == lines_of(own)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "encoder"}, ""),
        ({"network": "backbone", "k": 10, "normalize": True}, "k = 10, unit length"),
        (
            {"alpha": 0.03, "reconstructed_id": 0.5, "normalize": False},
            "α = 0.03, 50 % rebuilt ID images, raw features",
        ),
        ({"frozen_blocks": 1, "views": "flip", "epochs": 3.0}, "1 block frozen, mirrored only, 3 epochs"),
        ({"frozen_blocks": 0, "learning_rate": 3e-4}, "no block frozen, learning rate 0.0003"),
        ({"generator_steps": 200}, "generator steps 200"),
        ({"imported": "a.csv", "k": 3}, "imported from a.csv, k = 3"),
    ],
)
def test_settings_are_words(settings: dict[str, str | int | float], words: str) -> None:
    plain = BaselineResult(title="A", settings=settings, results={}, means={})
    assert settings_text(plain) == words
    tried = (Trial(settings={"k": 2}, value=0.5), Trial(settings={"k": 5}, value=None))
    tuned = plain.model_copy(update={"trials": tried})
    assert settings_text(tuned) == (f"{words}, " if words else "") + "best of 2 trials"


def test_every_value_that_is_tried_has_words() -> None:
    spaces = [SCORE_SEARCH, *(one.search for one in BASELINES.values())]
    for name, value in (
        (name, value) for space in spaces for name, values in space.items() for value in values
    ):
        text = settings_text(BaselineResult(title="A", settings={name: value}, results={}, means={}))
        assert text and "_" not in text
