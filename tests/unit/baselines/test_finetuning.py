from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sdviz import data
from sdviz.baselines import Baseline, Images
from sdviz.baselines.trained.fake_it import FakeIt
from sdviz.baselines.trained.mscl import MSCL
from sdviz.baselines.trained.multiclass_ad import MulticlassAD
from sdviz.baselines.trained.rot import Rot
from sdviz.nn.batches import encode
from tests.baselines import shapes_reference, unit

TRAINED = [MulticlassAD(epochs=2), MSCL(epochs=2), FakeIt(epochs=8), Rot(epochs=2)]


@pytest.mark.parametrize("method", TRAINED, ids=lambda one: one.key)
def test_trained_methods_leave_the_encoder_alone_and_repeat(method: Baseline) -> None:
    reference = shapes_reference()
    before = {k: v.clone() for k, v in reference.encoder.state_dict().items()}  # type: ignore[union-attr]
    shown: list[float] = []
    test = data.load("shapes", "test", limit=6)
    images = Images(images=test.images, ids=test.ids)
    first = method.fit(reference, shown.append).score(images)
    assert first.shape == (6,) and first.dtype == np.float64 and np.isfinite(first).all()
    assert shown[-1] == 1.0
    assert all(torch.equal(v, before[k]) for k, v in reference.encoder.state_dict().items())  # type: ignore[union-attr]
    assert np.array_equal(method.fit(reference).score(images), first)
    assert not np.array_equal(method.fit(shapes_reference(seed=1)).score(images), first)


@pytest.mark.parametrize("method", [MulticlassAD(k=3, epochs=1), MSCL(k=3, epochs=1), FakeIt(k=3, epochs=1)])
def test_a_trained_methods_score_is_scikit_learns_on_its_own_features(
    method: MulticlassAD | MSCL | FakeIt,
) -> None:
    reference = shapes_reference()
    test = data.load("shapes", "test", limit=6).images
    got = method.fit(reference).score(Images(images=test))
    assert reference.known.images is not None
    known, queries = (
        encode(method._encoder, one, "cpu").astype(float) for one in (reference.known.images, test)
    )
    if isinstance(method, MSCL):
        known, queries = unit(known), unit(queries)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(known).kneighbors(queries)
    assert np.allclose(got, (distances**2).sum(1), rtol=1e-4)
