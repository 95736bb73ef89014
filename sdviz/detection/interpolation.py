"""Weights between those before and after training (WiSE-FT, Wortsman et al. 2022)."""

import torch

from ..nn.encoder import Encoder


def interpolated(start: Encoder, end: Encoder, share: float) -> Encoder:
    """An encoder with the weights (1 - a) theta_0 + a theta_1, in eval mode on the CPU.

    Batch-norm statistics are weighted as the weights are. Exactly `start` at a = 0 and `end` at a = 1.

    Args:
        start: theta_0.
        end: theta_1, of the same architecture.
        share: a, 0..1.
    """
    encoder = Encoder(**end.config)
    before, after = start.state_dict(), end.state_dict()
    mixed = {
        name: torch.lerp(before[name].cpu(), tensor.cpu(), share) if tensor.is_floating_point() else tensor
        for name, tensor in after.items()
    }
    encoder.load_state_dict(mixed)
    return encoder.eval()
