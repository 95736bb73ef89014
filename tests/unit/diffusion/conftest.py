from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdviz.nn.unet import NoisePredictor


@pytest.fixture
def network(tiny_network: Callable[..., NoisePredictor]) -> NoisePredictor:
    """An untrained network whose answers are far from nothing."""
    network = tiny_network()
    # untrained, it predicts almost nothing: scaled up, its answers and the clipping both matter
    with torch.no_grad():
        network.unet.conv_out.weight.mul_(2)
    return network
