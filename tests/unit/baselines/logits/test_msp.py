from __future__ import annotations

import numpy as np
from scipy.special import softmax

from sdviz.baselines import Images
from tests.baselines import LOGITS, fit


def test_it_is_the_largest_probability_negated() -> None:
    assert np.allclose(
        fit("msp", logits=LOGITS).score(Images(logits=LOGITS)), -softmax(LOGITS.astype(float), 1).max(1)
    )


def test_huge_logits_have_a_score() -> None:
    huge = Images(logits=np.array([[1e4, -1e4, 0, 0]], np.float32))
    assert fit("msp", logits=LOGITS).score(huge)[0] == -1
