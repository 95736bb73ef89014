from __future__ import annotations

import numpy as np
import pytest

from sdviz.evaluation.report import Trial
from sdviz.evaluation.tuning import best_trial, draw_trials, left_out_splits, validation_split

LABELS = np.arange(60) % 5


def test_the_first_trial_is_the_methods_own_and_none_comes_twice() -> None:
    space, own = {"k": (1, 2, 5), "normalize": (False, True)}, {"k": 2, "normalize": False, "epochs": 3}
    found = draw_trials(space, own, 8, 0)
    assert found[0] == {"k": 2, "normalize": False}
    # there are six
    assert len(found) == 6 == len({tuple(one.values()) for one in found})
    assert draw_trials(space, own, 4, 0) == found[:4]
    assert draw_trials(space, own, 6, 1) != found
    # the own setting may lie outside of what is searched
    other = draw_trials(space, own | {"k": 7}, 3, 0)
    assert other[0] == {"k": 7, "normalize": False} and len(other) == 3


def test_the_best_is_the_first_of_the_highest_and_no_diverged_one() -> None:
    def trials(*values: float | None) -> list[Trial]:
        return [Trial(settings={}, value=value) for value in values]

    assert best_trial(trials(0.5, 0.7, 0.7)) == 1
    assert best_trial(trials(None, 0.1, None)) == 1
    assert best_trial(trials(None, None)) == 0


def test_trials_are_measured_on_other_images_than_fitted_on() -> None:
    split = validation_split(LABELS, 0.2, 3)
    assert sorted([*split.fit, *split.inside]) == list(range(60)) and len(split.inside) == 12
    assert split.outside is None
    np.testing.assert_array_equal(split.labels, LABELS[split.fit])
    assert not np.array_equal(validation_split(LABELS, 0.2, 4).inside, split.inside)


def test_left_out_clusters_are_only_among_what_is_to_be_found() -> None:
    splits = left_out_splits(LABELS, 0.4, 3, 0)
    held = validation_split(LABELS, 0.4, 0).inside
    pairs = set()
    for split in splits:
        assert split.outside is not None
        pair = set(LABELS[split.outside])
        assert len(pair) == 2 and not pair & {*LABELS[split.fit], *LABELS[split.inside]}
        assert sorted([*split.inside, *split.outside]) == held.tolist()
        # numbered anew, in the same order
        known = sorted(set(LABELS[split.fit]))
        np.testing.assert_array_equal(np.array(known)[split.labels], LABELS[split.fit])
        pairs.add(frozenset(pair))
    assert len(pairs) == 3


def test_three_clusters_are_too_few_to_leave_two_out() -> None:
    with pytest.raises(ValueError, match="takes 4 with images on both sides, and there are 3: raise holdout"):
        left_out_splits(np.arange(60) % 3, 0.2, 1, 0)
