"""TURTLE (Gadetsky et al., ICML 2024): the labelling of frozen features that linear classifiers learn best."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from ..config.nodes import TurtleConfig
from ..nn.loop import Execution, train_networks
from ..nn.randomness import step_generator


def turtle_labels(
    spaces: Sequence[np.ndarray], n_clusters: int, config: TurtleConfig, execution: Execution, seed: int = 0
) -> tuple[np.ndarray, float] | None:
    """Clusters images by their features in one or several spaces.

    A labelling is a softmax of a linear layer in each space, averaged. Each step trains new linear classifiers
    of the labels for a few steps, then moves the labels towards what the classifiers say. The entropy of the
    mean label keeps clusters from getting empty.

    Args:
        spaces: Features float (N,D) of the same N images by different networks.
        n_clusters: C.
        seed: Of the first weights and the batches.

    Returns:
        Probabilities of the clusters, float32 (N,C), and the loss over all images; None if it was stopped.

    Raises:
        ValueError: Fewer images than clusters.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    n, where = len(spaces[0]), execution.where
    if n < n_clusters:
        raise ValueError(f"{n_clusters} clusters of {n} images")
    torch.manual_seed(seed)
    inputs = [torch.tensor(_standardised(x)).to(where) for x in spaces]
    labellers = nn.ModuleList(weight_norm(nn.Linear(x.shape[1], n_clusters)) for x in inputs)
    batch = min(config.batch_size, n)

    def loss_at(step: int) -> torch.Tensor:
        rows = torch.randperm(n, generator=step_generator(seed, step, "turtle"))[:batch].to(where)
        z = [x[rows] for x in inputs]
        labels = _mean_label(labellers, z)
        return _loss(labels, _classifiers(z, labels.detach(), config), z, config.entropy_weight)

    if not train_networks("TURTLE", {"labels": labellers}, loss_at, config, batch, execution):
        return None
    inputs = [x.cpu() for x in inputs]
    with torch.no_grad():
        labels = _mean_label(labellers, inputs)
    loss = _loss(labels, _classifiers(inputs, labels, config), inputs, config.entropy_weight)
    return labels.numpy(), float(loss)


def _standardised(features: np.ndarray) -> np.ndarray:
    """Mean 0, and the mean length of a feature of unit variance: one scale for all networks."""
    centred = features - features.mean(0)
    return (centred / centred.std()).astype(np.float32)


def _mean_label(labellers: nn.ModuleList, z: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([one(x).softmax(1) for one, x in zip(labellers, z, strict=True)]).mean(0)


def _classifiers(
    z: Sequence[torch.Tensor], labels: torch.Tensor, config: TurtleConfig
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of a linear classifier in each space, trained from zero on soft labels by Adam."""
    found = []
    for x in z:
        weight = torch.zeros(labels.shape[1], x.shape[1], device=x.device, requires_grad=True)
        bias = torch.zeros(labels.shape[1], device=x.device, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias], config.classifier_learning_rate)
        for _ in range(config.classifier_steps):
            loss = F.cross_entropy(F.linear(x, weight, bias), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append((weight.detach(), bias.detach()))
    return found


def _loss(
    labels: torch.Tensor,
    classifiers: list[tuple[torch.Tensor, torch.Tensor]],
    z: Sequence[torch.Tensor],
    entropy_weight: float,
) -> torch.Tensor:
    fits = sum(F.cross_entropy(F.linear(x, w, b), labels) for x, (w, b) in zip(z, classifiers, strict=True))
    mean = labels.mean(0)
    entropy = -(mean * mean.clamp_min(1e-8).log()).sum()
    return fits - entropy_weight * entropy
