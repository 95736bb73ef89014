from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from sdviz.baselines import Images
from tests.baselines import LOGITS, fit


def test_scores_of_the_cluster_head() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    p = logits.softmax(1).numpy()
    images = Images(logits=LOGITS)
    assert np.allclose(fit("msp", logits=LOGITS).score(images), -p.max(1))
    assert np.allclose(fit("energy", logits=LOGITS).score(images), -torch.logsumexp(logits, 1).numpy())
    assert np.allclose(fit("entropy", logits=LOGITS).score(images), scipy_entropy(p, axis=1), atol=1e-12)


def test_scores_of_the_cluster_head_survive_huge_logits() -> None:
    huge = Images(logits=np.array([[1e4, -1e4, 0, 0]], np.float32))
    scores = {key: fit(key, logits=LOGITS).score(huge)[0] for key in ("msp", "energy", "entropy")}
    assert scores["msp"] == -1 and scores["energy"] == -1e4 and scores["entropy"] == pytest.approx(0)
