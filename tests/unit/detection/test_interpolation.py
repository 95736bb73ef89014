from __future__ import annotations

import pytest
import torch

from sdviz.detection.interpolation import interpolated
from sdviz.nn.encoder import Encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def make_encoder(seed: int) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder("small", 4).train()
        encoder(torch.randn(6, 3, 8, 8))  # batch statistics of its own
        return encoder.eval()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_weights_and_statistics_lie_between(share: float) -> None:
    start, end = make_encoder(0), make_encoder(1)
    found = interpolated(start, end, share)
    assert not found.training
    statistics = 0
    for name, value in found.state_dict().items():
        a, b = start.state_dict()[name], end.state_dict()[name]
        if value.is_floating_point():
            expected = (1 - share) * a.double() + share * b.double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
            statistics += "running" in name and not torch.equal(a, b)
    assert statistics > 4


def test_the_ends_are_exact_and_both_encoders_stay(one_thread: None) -> None:
    start, end = make_encoder(0), make_encoder(1)
    kept = {name: value.clone() for name, value in (*start.state_dict().items(), *end.state_dict().items())}
    for share, of in ((0.0, start), (1.0, end)):
        found = interpolated(start, end, share)
        for name, value in of.state_dict().items():
            assert torch.equal(found.state_dict()[name], value) or not value.is_floating_point(), name
        x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(found(x), of(x))
            found.body[0][0].weight.zero_()
    assert all(torch.equal(value, end.state_dict()[name]) for name, value in kept.items())
    assert start.body[0][0].weight.any()
