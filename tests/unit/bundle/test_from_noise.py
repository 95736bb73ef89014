from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sdviz.bundle import Bundle, from_noise
from sdviz.bundle.from_noise import BATCH_SIZE, images_from_noise, knows_whole_schedule
from sdviz.outliers import SamplingDiverged


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_noise, "STEPS", 5)


def test_each_cluster_has_its_images_and_they_are_the_same_again(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle(max_train_timestep=1000)
    told: list[float] = []
    made = images_from_noise(bundle, 8, on_progress=told.append)
    assert len(made) == 24 > BATCH_SIZE  # more than one batch
    assert made.images.shape == (24, 8, 8, 3) and made.class_names == bundle.class_names
    assert np.bincount(made.labels).tolist() == [8, 8, 8] and len(set(made.ids.tolist())) == 24
    assert len(told) == 2 * 5 and told == sorted(told) and told[-1] == 1.0
    fewer = images_from_noise(bundle, 2)
    assert fewer.ids.tolist() == made.ids[:6].tolist()
    assert np.abs(fewer.images.astype(int) - made.images[:6].astype(int)).mean() < 1


def test_a_network_of_a_part_of_the_schedule_makes_none(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle()
    assert not knows_whole_schedule(bundle) and knows_whole_schedule(tiny_bundle(max_train_timestep=1000))
    with pytest.raises(ValueError, match="noise up to S = 400 of 1000 only"):
        images_from_noise(bundle, 1)


def test_the_device_is_held_for_each_call_and_let_go_between(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle, lock, held = tiny_bundle(max_train_timestep=1000), threading.Lock(), list[bool]()
    network = bundle.noise_predictor
    network.register_forward_pre_hook(lambda *_: held.append(lock.locked()))
    between: list[bool] = []
    images_from_noise(bundle, 1, turn=lock, on_progress=lambda _: between.append(lock.locked()))
    assert held and all(held)
    assert between == [False] * 5


def test_what_stops_the_progress_stops_the_sampling(tiny_bundle: Callable[..., Bundle]) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images_from_noise(tiny_bundle(max_train_timestep=1000), 1, on_progress=stop)


def test_a_network_that_answers_nan_makes_no_picture(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle(max_train_timestep=1000)
    with torch.no_grad():
        for weight in bundle.noise_predictor.parameters():
            weight.fill_(float("nan"))
    with pytest.raises(SamplingDiverged, match="has to be trained again"):
        images_from_noise(bundle, 1)
    with pytest.raises(ValueError, match="per_cluster 0"):
        images_from_noise(bundle, 0)
