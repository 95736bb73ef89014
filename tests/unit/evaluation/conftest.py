from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sdviz.config.tree import ScoreConfig
from sdviz.evaluation import Evaluation, FeatureSet, evaluate


@pytest.fixture
def features() -> Callable[..., FeatureSet]:
    """Makes a set of n features about `centre`, float32 (n,6), named and numbered."""

    def make(name: str, role: str, n: int, centre: float, seed: int, heads: bool = False) -> FeatureSet:
        rng = np.random.default_rng(seed)
        x = rng.normal(centre, 1, (n, 6)).astype(np.float32)
        ids = np.array([f"{name}/{i}" for i in range(n)])
        widths = {"g_bin": 2, "g_in": 3, "g_out": 3}
        logits = {h: rng.normal(size=(n, w)).astype(np.float32) for h, w in widths.items()} if heads else None
        return FeatureSet(name, role, "test", x, ids, rng.integers(-1, 4, n), logits)  # type: ignore[arg-type]

    return make


@pytest.fixture
def evaluation(features: Callable[..., FeatureSet]) -> Callable[..., Evaluation]:
    """Makes an evaluation over two near sets, a far one and a validation set; `shift` moves all that is OOD."""

    def make(shift: float = 1.0, outliers: bool = True, bootstrap: int = 20, heads: bool = True) -> Evaluation:
        bank = features("train", "id", 150, 0.0, 1)
        sets = [
            features("test", "id", 60, 0.0, 2, heads),
            features("near-a", "near", 40, shift, 3, heads),
            features("near-b", "near", 10, 2 * shift, 4, heads),
            features("far-a", "far", 30, 4 * shift, 5, heads),
            features("val-a", "validation", 20, shift, 6, heads),
        ]
        bank_out = features("outliers", "near", 150, 1.0, 7).features if outliers else None
        score = ScoreConfig(k=5, alpha=0.5, normalize=False)
        return evaluate(bank.features, bank.ids, bank_out, sets, score, bootstrap, 0, "cpu")

    return make
