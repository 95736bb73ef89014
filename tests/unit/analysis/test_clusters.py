from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, adjusted_rand_score, confusion_matrix, normalized_mutual_info_score

from sdviz.analysis import PseudoLabels
from sdviz.analysis.clusters import against_classes, cluster_facts, confidence_histogram


def make_labels(n: int = 300, n_clusters: int = 5, seed: int = 0) -> PseudoLabels:
    rng = np.random.default_rng(seed)
    return PseudoLabels(
        np.array([f"shapes/train/{i:05d}" for i in range(n)]),
        rng.integers(0, n_clusters, n),
        rng.choice(np.linspace(0.2, 1, 40), n).astype(np.float32),
    )


def test_sizes_means_and_order_are_those_of_numpy() -> None:
    labels = make_labels()
    facts = cluster_facts(labels, 6)
    assert facts.sizes.tolist() == [int((labels.labels == c).sum()) for c in range(6)]
    assert np.isnan(facts.mean_confidence[5]) and len(facts.order[5]) == 0
    for c in range(5):
        rows = np.flatnonzero(labels.labels == c)
        assert facts.mean_confidence[c] == pytest.approx(labels.confidence[rows].astype(float).mean())
        expected = rows[np.argsort(-labels.confidence[rows], kind="stable")]
        assert facts.order[c].tolist() == expected.tolist()
        assert facts.rank[expected].tolist() == list(range(len(rows)))


def test_a_label_past_the_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.2, not 0\.\.4"):
        cluster_facts(make_labels(), 3)


def test_no_image_is_no_cluster() -> None:
    empty = PseudoLabels(np.array([], str), np.array([], np.int64), np.array([], np.float32))
    facts = cluster_facts(empty, 2)
    assert facts.sizes.tolist() == [0, 0] and [len(rows) for rows in facts.order] == [0, 0]


def test_the_histogram_loses_no_image() -> None:
    edges, counts = confidence_histogram(np.array([0.0, 0.06, 0.499, 0.96, 1.0], np.float32))
    assert counts.sum() == 5 and counts[-1] == 2 and counts[0] == 1
    assert edges[0] == 0 and edges[-1] == 1 and len(edges) == 21
    # float32 arithmetic may leave a probability a hair above 1
    assert confidence_histogram(np.array([1.0000001], np.float32))[1][-1] == 1


def test_agreement_is_that_of_sklearn_under_the_best_matching() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 400)
    renamed = np.array([2, 0, 3, 1])[truth]
    clusters = np.where(rng.random(400) < 0.8, renamed, rng.integers(0, 4, 400))
    names = np.array(["ant", "bee", "cat", "dog"])
    shown = names[truth].astype(object)
    shown[:20] = ""
    found = against_classes(clusters, shown.astype(str), 4)
    assert found is not None
    assert found.matched == ("bee", "dog", "ant", "cat")
    assert found.class_names == found.matched
    matched = np.array(found.matched)[clusters[20:]]
    assert found.agreement.accuracy == pytest.approx(accuracy_score(names[truth[20:]], matched))
    assert found.agreement.nmi == pytest.approx(normalized_mutual_info_score(truth[20:], clusters[20:]))
    assert found.agreement.ari == pytest.approx(adjusted_rand_score(truth[20:], clusters[20:]))
    expected = confusion_matrix(names[truth[20:]], matched, labels=list(found.class_names)).T
    assert found.confusion.tolist() == expected.tolist()
    assert found.agreement.n_images == 380


def test_more_clusters_than_classes_leave_some_unmatched() -> None:
    found = against_classes(np.array([0, 0, 1, 2]), np.array(["a", "a", "b", "a"]), 3)
    assert found is not None and found.matched == ("a", "b", "")
    few = against_classes(np.array([0, 0, 1]), np.array(["c", "a", "b"]), 2)
    assert few is not None and set(few.class_names) == {"a", "b", "c"} and few.confusion.shape == (2, 3)


def test_without_a_known_class_there_is_nothing_to_compare() -> None:
    assert against_classes(np.array([0, 1]), np.array(["", ""]), 2) is None
    assert against_classes(np.array([], np.int64), np.array([], str), 2) is None
