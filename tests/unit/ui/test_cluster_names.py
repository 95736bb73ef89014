from __future__ import annotations

import pytest

from sdviz.ui.cluster_names import cluster_before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("star", "cluster star"),
        ("cluster 8, mostly ship", "cluster 8, mostly ship"),
        ("Cluster of boats", "Cluster of boats"),
        ("my clusters", "cluster my clusters"),
    ],
)
def test_no_cluster_is_called_cluster_twice(name: str, said: str) -> None:
    assert f"{cluster_before(name)}{name}" == said
