"""The wrong label of each outlier (Eq. 2)."""

from __future__ import annotations

import numpy as np

from ..nn.randomness import derive_seed


def draw_target_labels(labels: np.ndarray, ids: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Eq. 2: draws c_r ~ Uniform({0..C-1} without y~), int64 (N,), from (seed, id) alone.

    Raises:
        ValueError: C below 2, or a label outside 0..C-1.
    """
    if n_classes < 2:
        raise ValueError(f"a wrong label needs at least 2 clusters, there is {n_classes}")
    labels = np.asarray(labels, np.int64)
    check_labels("labels", labels, n_classes)
    drawn = [derive_seed(seed, i, "target") % (n_classes - 1) for i in np.asarray(ids, str).tolist()]
    # 0..C-2; those from y~ on move up by one
    targets = np.array(drawn, np.int64).reshape(-1)
    return targets + (targets >= labels)


def check_labels(name: str, labels: np.ndarray, n_classes: int) -> None:
    """Raises ValueError if a label is outside 0..C-1."""
    bad = labels[(labels < 0) | (labels >= n_classes)]
    if len(bad):
        raise ValueError(f"{name}: {int(bad[0])} is outside 0..{n_classes - 1}")
