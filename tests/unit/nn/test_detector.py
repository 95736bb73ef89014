from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sdviz.nn.batches import encode
from sdviz.nn.detector import Detector, detector_outputs
from sdviz.nn.encoder import Encoder


@pytest.fixture
def detector(one_thread: None) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Detector(Encoder("small", 4), n_clusters=3, zero_heads=False).eval()


def test_features_and_three_heads(detector: Detector, tiny_images: Callable[..., np.ndarray]) -> None:
    x = torch.tensor(tiny_images(5)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        features, g_bin, g_in, g_out = detector(x)
    assert [tuple(z.shape) for z in (features, g_bin, g_in, g_out)] == [(5, 16), (5, 2), (5, 3), (5, 3)]
    assert detector.feature_dim == 16
    assert torch.equal(features, detector.encoder(x))
    for head, logits in ((detector.g_bin, g_bin), (detector.g_in, g_in), (detector.g_out, g_out)):
        assert torch.allclose(logits, features @ head.weight.T + head.bias)
    assert not torch.equal(g_in, g_out)


def test_unit_features_tell_heads_only_directions(tiny_images: Callable[..., np.ndarray]) -> None:
    detector = Detector(Encoder("small", 4), 3, zero_heads=False, unit_features=True).eval()
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        short, long = detector.heads(features), detector.heads(3 * features)
    assert torch.equal(long.features, 3 * features)
    unit = 10 * features / features.norm(dim=1, keepdim=True)
    for head, a, b in zip((detector.g_bin, detector.g_in, detector.g_out), short[1:], long[1:], strict=True):
        torch.testing.assert_close(a, unit @ head.weight.T + head.bias)
        torch.testing.assert_close(a, b)
    again = Detector(Encoder(**detector.config["encoder"]), 3, unit_features=detector.config["unit_features"])
    again.load_state_dict(detector.state_dict())
    images = tiny_images(4)
    for a, b in zip(detector_outputs(detector, images), detector_outputs(again.eval(), images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_heads_begin_at_zero() -> None:
    heads = Detector(Encoder("small", 4), 3)
    for head in (heads.g_bin, heads.g_in, heads.g_out):
        assert not head.weight.any() and not head.bias.any()


def test_its_configuration_builds_it_again(detector: Detector, tiny_images: Callable[..., np.ndarray]) -> None:
    again = Detector(Encoder(**detector.config["encoder"]), detector.config["n_clusters"])
    again.load_state_dict(detector.state_dict())
    images = tiny_images(4)
    for a, b in zip(detector_outputs(detector, images), detector_outputs(again, images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_outputs_are_float32_arrays_whatever_the_batch(
    detector: Detector, tiny_images: Callable[..., np.ndarray]
) -> None:
    images = tiny_images(7)
    detector.train()  # and puts it into eval mode itself
    whole, *parts = (detector_outputs(detector, x, "cpu") for x in (images, images[:3], images[3:]))
    for a, *b in zip(whole, *parts, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, np.concatenate(b), atol=1e-6)
    np.testing.assert_allclose(whole.features, encode(detector.encoder, images, "cpu"), atol=1e-6)
    assert not detector.training


def test_frozen_batch_norms_stay_in_eval_mode_and_all_else_is_trained(detector: Detector) -> None:
    norms = [one for one in detector.encoder.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert len(norms) > 2
    for frozen in (True, False):
        detector.frozen_batch_norm = frozen
        assert detector.train() is detector
        assert {one.training for one in norms} == {not frozen}
        assert detector.encoder.training and detector.g_in.training
    assert not any(one.training for one in detector.eval().modules())
