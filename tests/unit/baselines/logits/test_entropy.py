from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from sdviz.baselines import Images
from tests.baselines import LOGITS, fit


def test_it_is_scipys_entropy() -> None:
    p = softmax(LOGITS.astype(float), 1)
    assert np.allclose(
        fit("entropy", logits=LOGITS).score(Images(logits=LOGITS)), entropy(p, axis=1), atol=1e-12
    )


def test_huge_logits_have_a_score() -> None:
    huge = Images(logits=np.array([[1e4, -1e4, 0, 0]], np.float32))
    assert fit("entropy", logits=LOGITS).score(huge)[0] == pytest.approx(0)
