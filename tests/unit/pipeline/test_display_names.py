"""What clusters are called where classes are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sdviz.pipeline import bundle as bundling
from sdviz.pipeline.workspace import Workspace

CLASSES = ("cat", "dog", "ship")


def named(
    monkeypatch: pytest.MonkeyPatch, of_cluster: list[list[int]], source: str = "scan"
) -> tuple[str, ...]:
    """The names of clusters with so many images of each class."""
    classes = [y for counts in of_cluster for y, n in enumerate(counts) for _ in range(n)]
    labels = [c for c, counts in enumerate(of_cluster) for _ in range(sum(counts))]
    numbers = tuple(f"cluster {c}" for c in range(len(of_cluster)))
    monkeypatch.setattr(bundling, "read_cluster_names", lambda work: numbers)
    monkeypatch.setattr(bundling, "read_labels", lambda work: np.array(labels))
    images = SimpleNamespace(labels=np.array(classes), class_names=CLASSES)
    config = SimpleNamespace(labels=SimpleNamespace(source=source))
    work: Any = SimpleNamespace(images=images, config=config)
    return bundling.display_names(cast(Workspace, work))


def test_a_name_claims_no_more_of_a_class_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = [[90, 10, 0], [40, 60, 0], [30, 20, 50], [29, 40, 31], [50, 0, 50], [25, 40, 35], [32, 40, 28]]
    assert named(monkeypatch, clusters) == (
        "cat",
        "cluster 1, mostly dog",
        "cluster 2, often ship",
        "cluster 3, often dog",
        "cluster 4, often cat and ship",
        "cluster 5, often dog and ship",
        "cluster 6, often dog and cat",  # four fifths of the first are close
    )


def test_two_clusters_of_one_class_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, [[9, 0, 0], [9, 0, 0]]) == ("cluster 0, cat", "cluster 1, cat")


def test_given_labels_have_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, [[9, 0, 0], [0, 9, 0]], "ground_truth") == ("cluster 0", "cluster 1")
