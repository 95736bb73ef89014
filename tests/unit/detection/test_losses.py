from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdviz.detection.losses import (
    NEIGHBOUR_TEMPERATURE,
    detector_loss,
    distillation_loss,
    neighbour_loss,
)
from sdviz.nn.detector import Detector
from sdviz.nn.encoder import Encoder

IS_OUTLIER = torch.tensor([False, False, True, True])
LABELS = torch.tensor([0, 2, 1, 1])


def test_closed_form() -> None:
    # two logits of 0 and log 3 are probabilities 1/4 and 3/4; three of 0, 0 and log 2 are 1/4, 1/4, 1/2
    g_bin = torch.tensor([[0, math.log(3)]] * 4)
    g_in = torch.tensor([[0, 0, math.log(2)]] * 4)
    g_out = torch.zeros(4, 3)
    expected = (
        (math.log(4) + math.log(4))  # ID, told outlier with 3/4; cluster 0 with 1/4
        + (math.log(4) + math.log(2))  # ID, cluster 2 with 1/2
        + 2 * (math.log(4 / 3) + 0.3 * math.log(3))  # outliers, cluster 1 with 1/3
    ) / 4
    loss = detector_loss(g_bin, g_in, g_out, IS_OUTLIER, LABELS, 0.3)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_zero_heads_lose_log_2_and_log_c() -> None:
    loss = detector_loss(torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(4, 3), IS_OUTLIER, LABELS, 0.3)
    assert float(loss) == pytest.approx(math.log(2) + 0.5 * 1.3 * math.log(3))


def test_each_head_learns_from_its_own_side() -> None:
    heads = [torch.randn(4, n, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (2, 3, 3)]
    g_bin, g_in, g_out = heads
    detector_loss(g_bin, g_in, g_out, IS_OUTLIER, LABELS, 0.3).backward()
    assert g_bin.grad is not None and g_in.grad is not None and g_out.grad is not None
    assert g_bin.grad.abs().sum(1).gt(0).tolist() == [True] * 4
    assert g_in.grad.abs().sum(1).gt(0).tolist() == [True, True, False, False]
    assert g_out.grad.abs().sum(1).gt(0).tolist() == [False, False, True, True]


def test_lambda_weighs_the_outliers_clusters_alone() -> None:
    heads = [torch.randn(4, n, generator=torch.Generator().manual_seed(n)) for n in (2, 3, 3)]
    zero, one, two = (float(detector_loss(*heads, IS_OUTLIER, LABELS, w)) for w in (0.0, 1.0, 2.0))
    outside = torch.nn.functional.cross_entropy(heads[2][2:], LABELS[2:], reduction="sum") / 4
    assert (one - zero, two - one) == pytest.approx((float(outside), float(outside)), rel=1e-5)


def test_a_hopeless_logit_of_the_head_that_does_not_count_is_no_nan() -> None:
    g_in = torch.zeros(4, 3)
    g_in[2, 0] = 1e38
    g_in.requires_grad_()
    loss = detector_loss(torch.zeros(4, 2), g_in, torch.zeros(4, 3), IS_OUTLIER, LABELS, 0.3)
    loss.backward()
    assert g_in.grad is not None and torch.isfinite(loss) and torch.isfinite(g_in.grad).all()


def test_all_heads_and_the_encoder_get_gradients(one_thread: None) -> None:
    torch.manual_seed(0)
    detector = Detector(Encoder("small", 4), 3, zero_heads=False)
    out = detector(torch.randn(4, 3, 8, 8))
    detector_loss(out.g_bin, out.g_in, out.g_out, IS_OUTLIER, LABELS, 0.3).backward()
    for name, p in detector.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_the_neighbour_loss_is_its_sum_in_numpy() -> None:
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    side = np.array([0, 1, 1, 0, 1, 0, 0])
    z = features.double().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    e = np.exp(z @ z.T / NEIGHBOUR_TEMPERATURE)
    np.fill_diagonal(e, 0)
    own = np.where(side[:, None] == side, e, 0).sum(1)
    expected = -np.log(own / e.sum(1)).mean()
    assert float(neighbour_loss(features, torch.tensor(side == 1))) == pytest.approx(expected, rel=1e-5)
    # of a direction only, whatever the length
    assert float(neighbour_loss(3 * features, torch.tensor(side == 1))) == pytest.approx(expected, rel=1e-5)


def test_sides_in_several_places_lose_nothing_and_mixed_ones_do() -> None:
    # four corners: no plane through them parts ID at (1, 0) and (-1, 0) from outliers at (0, 1) and (0, -1)
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(3, 1)
    side = torch.tensor([False, False, True, True]).repeat(3)
    mixed = torch.arange(12) // 4 % 2 == 1
    assert float(neighbour_loss(corners, side)) < 1e-3 < 0.5 < float(neighbour_loss(corners, mixed))


def test_an_image_alone_on_its_side_neither_counts_nor_spoils_the_gradient() -> None:
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    alone = neighbour_loss(features, torch.tensor([False, True, True]))
    alone.backward()
    assert alone.item() > 0 and features.grad is not None and torch.isfinite(features.grad).all()
    nobody = neighbour_loss(features[:2], torch.tensor([False, True]))
    assert nobody.item() == 0
    nobody.backward()


def test_distillation_is_the_mean_squared_length() -> None:
    features, start = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert float(distillation_loss(features, start)) == (5 + 25) / 2
    assert float(distillation_loss(start, start)) == 0
