"""The detector's loss, Eq. 4-5, and what can stand beside or in the place of its terms."""

from __future__ import annotations

import torch
from torch.nn import functional as F

NEIGHBOUR_TEMPERATURE = 0.1


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


def neighbour_loss(features: torch.Tensor, is_outlier: torch.Tensor) -> torch.Tensor:
    """Neighbourhood components analysis over the two sides of a batch (Goldberger et al. 2004), a scalar.

    With s_ij the cosine of features i and j over `NEIGHBOUR_TEMPERATURE`, the mean over i of

        -log (sum of exp(s_ij) over j != i of the same side / sum of exp(s_ij) over j != i).

    0 where every image has only its own side around it, wherever on the sphere that is: no plane has to part
    the sides. An image that is alone on its side counts as 0.

    Args:
        features: float (N,D).
        is_outlier: bool (N,), the side.
    """
    z = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / NEIGHBOUR_TEMPERATURE).masked_fill(itself, float("-inf"))
    other_side = is_outlier[:, None] != is_outlier[None, :]
    has_company = (~other_side & ~itself).any(1)
    if not has_company.any():
        return features.sum() * 0
    own = similarity.masked_fill(other_side, float("-inf"))[has_company].logsumexp(1)
    return (similarity[has_company].logsumexp(1) - own).sum() / len(z)


def distillation_loss(features: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The mean over N images of ||f - f_0||^2, f (N,D) the features and f_0 (N,D) those before training."""
    return (features.float() - start.float()).square().sum(1).mean()
