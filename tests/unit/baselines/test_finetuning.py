from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sdviz import data
from sdviz.baselines import BASELINES, Baseline, Images
from sdviz.baselines.finetuning import FLIP, FineTuned, Trained
from sdviz.baselines.trained.fake_it import FakeIt
from sdviz.baselines.trained.mscl import MSCL
from sdviz.baselines.trained.multiclass_ad import MulticlassAD
from sdviz.baselines.trained.rot import Rot
from sdviz.config.nodes import ViewsConfig
from sdviz.nn.batches import encode
from sdviz.nn.views import random_views
from tests.baselines import noise_reference, shapes_reference, unit

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


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", [MulticlassAD, MSCL, FakeIt])
def test_a_trained_methods_score_is_scikit_learns_on_its_own_features(
    kind: type[FineTuned], normalize: bool
) -> None:
    method = kind(k=3, epochs=1, normalize=normalize)
    reference = shapes_reference()
    test = data.load("shapes", "test", limit=6).images
    got = method.fit(reference).score(Images(images=test))
    assert reference.known.images is not None
    known, queries = (
        encode(method._encoder, one, "cpu").astype(float) for one in (reference.known.images, test)
    )
    if normalize:
        known, queries = unit(known), unit(queries)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(known).kneighbors(queries)
    assert np.allclose(got, (distances**2).sum(1), rtol=1e-4)


@pytest.mark.parametrize("method", TRAINED, ids=lambda one: one.key)
def test_weights_that_were_kept_stand_for_the_training(
    method: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = shapes_reference()
    images = Images(images=data.load("shapes", "test", limit=6).images)
    want = method.fit(reference).score(images)
    kept = {name: tensor.clone() for name, tensor in method.weights.items()}
    assert all(name.split(".")[0] in ("encoder", "head") for name in kept)

    def refuse(*args: object) -> None:
        raise AssertionError("it was trained again")

    with monkeypatch.context() as patch:
        patch.setattr("sdviz.baselines.finetuning.train_networks", refuse)
        again = type(method)(**method.settings.model_dump())
        assert np.array_equal(again.fit(reference, weights=kept).score(images), want)
    # the next fit trains
    assert np.array_equal(again.fit(reference).score(images), want)


@pytest.mark.parametrize("key", ["multiclass_ad", "mscl", "fake_it", "rot"])
def test_frozen_blocks_keep_weights_and_statistics(key: str) -> None:
    reference = shapes_reference()
    assert reference.encoder is not None
    method = BASELINES[key](epochs=1, frozen_blocks=2).fit(reference)
    assert isinstance(method, Trained)
    changed = {
        i
        for i, (before, after) in enumerate(zip(reference.encoder.blocks, method._encoder.blocks, strict=True))
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after.state_dict()[name])
    }
    assert changed == {2, 3}


@pytest.mark.parametrize("views", ["run", "detector", "flip"])
@pytest.mark.parametrize("key", ["multiclass_ad", "mscl", "fake_it", "rot"])
def test_the_views_are_the_chosen_ones(key: str, views: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ViewsConfig] = []

    def watched(x: torch.Tensor, config: ViewsConfig, generator: torch.Generator) -> torch.Tensor:
        seen.append(config)
        return random_views(x, config, generator)

    module = BASELINES[key].__module__ if key in ("mscl", "fake_it") else "sdviz.baselines.finetuning"
    monkeypatch.setattr(f"{module}.random_views", watched)
    outliers = np.random.default_rng(2).integers(0, 256, (5, 8, 8, 3), np.uint8)
    reference = noise_reference(np.arange(24) % 3, outliers)
    run, detector = ViewsConfig(area=(0.5, 1.0)), ViewsConfig(area=(0.9, 1.0))
    reference = replace(reference, views=run, detector_views=detector)
    BASELINES[key](epochs=1, views=views).fit(reference)
    assert set(map(repr, seen)) == {repr({"run": run, "detector": detector, "flip": FLIP}[views])}


def test_a_flip_mirrors_and_changes_nothing_else() -> None:
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = random_views(x, FLIP, torch.Generator().manual_seed(1))
    plain, mirrored = ((y - one).abs().amax((1, 2, 3)) < 1e-5 for one in (x, x.flip(-1)))
    assert (plain ^ mirrored).all() and plain.any() and mirrored.any()
