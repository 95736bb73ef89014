"""TEMI (Adaloglou et al., BMVC 2023): heads on frozen features that agree with a slow copy on neighbours."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..config.nodes import TemiConfig
from ..nn.loop import Execution, train_networks
from ..nn.randomness import step_generator

# how fast the running means of the clusters' shares and of the heads' losses follow
PRIOR_RATE, LOSS_RATE = 0.1, 0.05


def temi_labels(
    features: np.ndarray,
    neighbours: np.ndarray,
    n_clusters: int,
    config: TemiConfig,
    execution: Execution,
    seed: int = 0,
) -> tuple[np.ndarray, float] | None:
    """Clusters images by their features and their neighbours, and keeps the head with the lowest loss.

    Args:
        features: float (N,D).
        neighbours: int64 (N,k), the rows of the images most like each.
        n_clusters: C.
        seed: Of the first weights, the batches and the pairs.

    Returns:
        Probabilities of the clusters by the teacher, float32 (N,C), and its head's loss, a running mean; None
        if it was stopped.

    Raises:
        ValueError: Fewer images than clusters.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    n, where = len(features), execution.where
    if n < n_clusters:
        raise ValueError(f"{n_clusters} clusters of {n} images")
    torch.manual_seed(seed)
    x = F.normalize(torch.tensor(features, dtype=torch.float32), dim=1).to(where)
    near = torch.tensor(neighbours)
    student = _Heads(config.heads, x.shape[1], config.hidden, n_clusters, config.temperature)
    teacher = copy.deepcopy(student).requires_grad_(False)
    batch = min(config.batch_size, n)

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(seed, step, "temi")
        rows = torch.randperm(n, generator=generator)[:batch]
        others = near[rows, torch.randint(near.shape[1], (batch,), generator=generator)]
        pair = x[rows.to(where)], x[others.to(where)]
        p_s, p_t = ([heads(z) for z in pair] for heads in (student, teacher))
        teacher.prior.lerp_(torch.cat(p_t, 1).mean(1, keepdim=True), PRIOR_RATE)
        # pairs on whose cluster the heads agree weigh more
        weight = (p_t[0] * p_t[1]).sum(-1).mean(0)
        losses = temi_losses(p_s[0], p_t[1], teacher.prior, weight)
        losses = losses + temi_losses(p_s[1], p_t[0], teacher.prior, weight)
        teacher.mean_loss.lerp_(losses.detach(), LOSS_RATE)
        return losses.sum()

    def after_step(step: int) -> None:
        for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - config.teacher_decay)

    networks = {"student": student, "teacher": teacher}
    if not train_networks("TEMI", networks, loss_at, config, batch, execution, after_step):
        return None
    best = int(teacher.mean_loss.argmin())
    with torch.no_grad():
        labels = torch.cat([teacher(part)[best] for part in x.cpu().split(1000)])
    return labels.numpy(), float(teacher.mean_loss[best])


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
    """Several heads at once, each with two hidden layers and weights of unit length.

    Attributes:
        prior: float (heads,1,C), the running mean probability of each cluster.
        mean_loss: float (heads,), the running mean loss.
    """

    def __init__(self, n: int, dim: int, hidden: tuple[int, int], n_clusters: int, temperature: float) -> None:
        super().__init__()
        first, second = hidden
        self.temperature = temperature
        self.first = nn.Parameter(torch.randn(n, dim, first) * (2 / dim) ** 0.5)
        self.second = nn.Parameter(torch.randn(n, first, second) * (2 / first) ** 0.5)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n, 1, size)) for size in hidden)
        self.prototypes = nn.Parameter(torch.randn(n, second, n_clusters))
        self.prior: torch.Tensor
        self.mean_loss: torch.Tensor
        self.register_buffer("prior", torch.full((n, 1, n_clusters), 1 / n_clusters))
        self.register_buffer("mean_loss", torch.zeros(n))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Probabilities float (heads,N,C) of features float (N,D)."""
        z = F.gelu(z @ self.first + self.biases[0]) @ self.second + self.biases[1]
        cosines = F.normalize(z, dim=-1) @ F.normalize(self.prototypes, dim=1)
        return (cosines / self.temperature).softmax(-1)
