"""TEMI (Adaloglou et al., BMVC 2023): heads on frozen features that agree with a slow copy on neighbours."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..config.nodes import TemiConfig
from ..nn.device import resolve_device
from ..nn.randomness import step_generator


def temi_labels(
    features: np.ndarray,
    neighbours: np.ndarray,
    n_clusters: int,
    config: TemiConfig,
    seed: int = 0,
    device: str | torch.device = "auto",
    on_step: Callable[[int, float], bool] | None = None,
) -> tuple[np.ndarray, float] | None:
    """Clusters images by their features and their neighbours, and keeps the head with the lowest loss.

    Args:
        features: float (N,D).
        neighbours: int64 (N,k), the rows of the images most like each.
        n_clusters: C.
        seed: Of the first weights, the batches and the pairs.
        on_step: Called with the steps done and the loss; True ends the training.

    Returns:
        Probabilities of the clusters by the teacher, float32 (N,C), and its head's loss; None if it was ended.

    Raises:
        ValueError: Fewer images than clusters.
    """
    n = len(features)
    if n < n_clusters:
        raise ValueError(f"{n_clusters} clusters of {n} images")
    where = resolve_device(device)
    torch.manual_seed(seed)
    x = F.normalize(torch.tensor(features, dtype=torch.float32), dim=1).to(where)
    near = torch.tensor(neighbours)
    student, teacher = (_Heads(config.heads, x.shape[1], config.hidden, n_clusters).to(where) for _ in range(2))
    teacher.load_state_dict(student.state_dict())
    optimizer = torch.optim.AdamW(student.parameters(), config.learning_rate)
    prior = torch.full((config.heads, 1, n_clusters), 1 / n_clusters, device=where)
    batch = min(config.batch_size, n)
    mean_loss = torch.zeros(config.heads, device=where)
    for step in range(config.total_steps):
        generator = step_generator(seed, step, "temi")
        rows = torch.randperm(n, generator=generator)[:batch]
        others = near[rows, torch.randint(near.shape[1], (batch,), generator=generator)]
        pair = x[rows.to(where)], x[others.to(where)]
        p_s = [(student(z) / config.temperature).softmax(-1) for z in pair]
        with torch.no_grad():
            p_t = [(teacher(z) / config.temperature).softmax(-1) for z in pair]
            prior = 0.9 * prior + 0.1 * torch.cat(p_t, 1).mean(1, keepdim=True)
            # pairs on whose cluster the heads agree weigh more
            weight = (p_t[0] * p_t[1]).sum(-1).mean(0)
        each = temi_losses(p_s[0], p_t[1], prior, weight) + temi_losses(p_s[1], p_t[0], prior, weight)
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 1 - config.teacher_decay)
        mean_loss = 0.95 * mean_loss + 0.05 * each.detach()
        if on_step is not None and on_step(step + 1, float(each.detach().mean())):
            return None
    best = int(mean_loss.argmin())
    with torch.no_grad():
        parts = [(teacher(part) / config.temperature).softmax(-1)[best] for part in x.split(2000)]
    return torch.cat(parts).cpu().numpy(), float(mean_loss[best])


def temi_losses(
    student: torch.Tensor, teacher: torch.Tensor, prior: torch.Tensor, weight: torch.Tensor, beta: float = 0.6
) -> torch.Tensor:
    """Eq. 9 of the paper: the pointwise mutual information of pairs, weighted, negated.

    Args:
        student: float (heads,N,C), probabilities for one image of each pair.
        teacher: float (heads,N,C), the teacher's for the other.
        prior: float (heads,1,C), the mean probability of each cluster.
        weight: float (N,), of each pair.

    Returns:
        float (heads,).
    """
    shared = ((student * teacher) ** beta / prior).sum(-1).clamp_min(1e-8)
    return -(weight * shared.log()).mean(-1)


class _Heads(nn.Module):
    """Several heads at once: two hidden layers, unit length, and weights of unit length."""

    def __init__(self, n: int, dim: int, hidden: tuple[int, int], n_clusters: int) -> None:
        super().__init__()
        sizes = (dim, *hidden)
        self.layers = nn.ParameterList(
            nn.Parameter(torch.randn(n, a, b) * (2 / a) ** 0.5) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n, 1, b)) for b in hidden)
        self.prototypes = nn.Parameter(torch.randn(n, hidden[-1], n_clusters))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Cosines float (heads,N,C) of features float (N,D)."""
        for i, (weight, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            z = z @ weight + bias
            z = F.gelu(z) if i + 1 < len(self.layers) else z
        return F.normalize(z, dim=-1) @ F.normalize(self.prototypes, dim=1)
