"""The detector's loss, Eq. 4-5."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def detector_loss(
    g_bin: torch.Tensor,
    g_in: torch.Tensor,
    g_out: torch.Tensor,
    is_outlier: torch.Tensor,
    labels: torch.Tensor,
    outlier_weight: float,
) -> torch.Tensor:
    """Eq. 4: CE(g_bin, I) + (1 - I) CE(g_in, y~) + I lambda CE(g_out, y~), averaged over the batch.

    Args:
        g_bin: float (N,2), logits of ID and outlier.
        g_in: float (N,C), logits that count for ID images.
        g_out: float (N,C), logits that count for outliers.
        is_outlier: bool (N,), I of Eq. 5.
        labels: int64 (N,), y~ of the image, or of the outlier's source.
        outlier_weight: lambda.
    """
    sides = F.cross_entropy(g_bin, is_outlier.long(), reduction="none")
    inside = F.cross_entropy(g_in, labels, reduction="none")
    outside = F.cross_entropy(g_out, labels, reduction="none")
    # where, not a product: 0 times an infinite loss would be NaN
    return (sides + torch.where(is_outlier, outlier_weight * outside, inside)).mean()
