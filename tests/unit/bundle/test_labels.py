from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sdviz.bundle import Bundle
from sdviz.bundle.labels import source_labels
from sdviz.data import ImageSet


def test_labels_are_the_sets_own_only_where_the_bundle_learned_them(
    tiny_bundle: Callable[..., Bundle], tiny_images: Callable[..., np.ndarray]
) -> None:
    bundle, ids = tiny_bundle(), np.array([f"shapes/test/{i:05d}" for i in range(40)])
    classes = ("disk", "ring", "square")
    images = ImageSet("shapes", "test", tiny_images(40), np.arange(40, dtype=np.int64) % 3, ids, classes)
    guessed, sure = bundle.pseudo_label(images.images)
    assert (guessed != images.labels).any()
    labels, confidence = source_labels(bundle, images)
    assert (labels == images.labels).all() and np.isnan(confidence).all()
    # unlabelled ones among them are guessed
    some = np.where(np.arange(40) < 20, images.labels, -1)
    labels, confidence = source_labels(bundle, replace(images, labels=some))
    assert (labels[:20] == images.labels[:20]).all() and (labels[20:] == guessed[20:]).all()
    assert np.isnan(confidence[:20]).all() and confidence[20:] == pytest.approx(sure[20:])
    # another set's labels, other names, another source of labels: all guessed
    for other in (replace(images, name="digits"), replace(images, class_names=("a", "b", "c"))):
        assert (source_labels(bundle, other)[0] == guessed).all()
    assert (source_labels(tiny_bundle(labels_from="SCAN"), images)[0] == guessed).all()
    with pytest.raises(ValueError, match="no clusterer"):
        source_labels(tiny_bundle(clusterer=False), replace(images, name="digits"))
