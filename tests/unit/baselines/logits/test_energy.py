from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from sdviz.baselines import Images
from tests.baselines import LOGITS, fit


def test_it_is_the_log_of_the_sum_of_exponentials_negated() -> None:
    assert np.allclose(
        fit("energy", logits=LOGITS).score(Images(logits=LOGITS)), -logsumexp(LOGITS.astype(float), 1)
    )


def test_huge_logits_have_a_score() -> None:
    huge = Images(logits=np.array([[1e4, -1e4, 0, 0]], np.float32))
    assert fit("energy", logits=LOGITS).score(huge)[0] == -1e4
