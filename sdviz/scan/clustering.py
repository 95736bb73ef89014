"""SCAN (Van Gansbeke et al. 2020): clusters from neighbours, then self-labels; and k-means."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional as F

from ..config.nodes import OptimizerConfig, ScanConfig, SelfLabelConfig, TrainingConfig, ViewsConfig
from ..detection.knn import unit_length
from ..nn.classifier import Projection, ScanClassifier
from ..nn.device import fast_autocast
from ..nn.encoder import Encoder
from ..nn.feature_cache import kept_features
from ..nn.loop import Execution, train_networks
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views


def scan_losses(anchors: torch.Tensor, neighbours: torch.Tensor, entropy_weight: float) -> torch.Tensor:
    """Eq. 2 of Van Gansbeke et al.: mean -log <p(x), p(neighbour)>, minus the mean prediction's entropy.

    Args:
        anchors: float (...,N,C), logits, of several heads or of one.
        neighbours: float (...,N,C), logits of a neighbour of each.
        entropy_weight: 5 in the paper.

    Returns:
        float (...), for each head; -entropy_weight * log C at best.
    """
    p, q = anchors.float().softmax(-1), neighbours.float().softmax(-1)
    consistency = -(p * q).sum(-1).clamp_min(1e-8).log().mean(-1)
    mean = p.mean(-2).clamp_min(1e-8)
    entropy = -(mean * mean.log()).sum(-1)
    return consistency - entropy_weight * entropy


def train_scan(
    encoder: Encoder,
    images: np.ndarray,
    neighbours: np.ndarray,
    n_clusters: int,
    views: ViewsConfig,
    config: ScanConfig,
    execution: Execution,
    seed: int = 0,
    projection: Projection | None = None,
) -> tuple[ScanClassifier, float] | None:
    """Trains a copy of an encoder under several heads at once, and keeps the head with the lowest loss.

    The heads are trained alone first, at a high rate on fixed features, because heads that start together with
    the encoder often split two classes over two clusters for good. Then all are trained.

    Args:
        encoder: Where to start; left as it is.
        images: uint8 (N,H,W,3).
        neighbours: int64 (N,k), rows of each image's nearest images, nearest first.
        seed: Of the heads' first weights, the batches and the views.
        projection: SimCLR's, between encoder and heads; left as it is.

    Returns:
        The network in eval mode on the CPU and its head's loss; None if training was stopped.

    Raises:
        ValueError: Fewer images than clusters.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    if len(images) < n_clusters:
        raise ValueError(f"{n_clusters} clusters of {len(images)} images")
    where = execution.where
    torch.manual_seed(seed)
    model = ScanClassifier(copy.deepcopy(encoder), n_clusters, copy.deepcopy(projection))
    heads = _Heads(config.heads, model.head.in_features, n_clusters)
    near = torch.tensor(neighbours)
    # 1. the heads alone; a resumed training has them in its state
    is_resumed = execution.state_path is not None and execution.state_path.exists()
    if config.head_steps and not is_resumed:
        if not _train_heads(heads, _embedded(model, images, where), near, config, seed, execution.should_stop):
            return None  # nothing is saved, because a state means that the heads are done

    # 2. all together, on views
    pixels = channels_first(images, where)
    batch = min(config.batch_size, len(pixels))

    def loss_at(step: int) -> torch.Tensor:
        # images, and one of the neighbours of each
        generator = step_generator(seed, step, "scan")
        rows = torch.randperm(len(pixels), generator=generator)[:batch]
        pick = torch.randint(near.shape[1], (batch,), generator=generator)
        x = random_views(scale(pixels[torch.cat([rows, near[rows, pick]]).to(where)]), views, generator)
        # the loss of each head, all in one pass through the encoder
        with fast_autocast(where):
            embedded = model.embed(x)
        anchors, others = heads(embedded.float()).chunk(2, dim=1)
        return scan_losses(anchors, others, config.entropy_weight).mean()

    # the model's own head gets no gradient and stays as it is
    networks = {"model": model, "heads": heads}
    if config.total_steps and not train_networks("SCAN", networks, loss_at, config, batch, execution):
        return None
    # 3. the head with the lowest loss over all images and their nearest neighbours, without views
    with torch.no_grad():
        logits = heads(_embedded(model.to("cpu"), images, where))
        losses = scan_losses(logits, logits[:, near[:, 0]], config.entropy_weight)
        best = int(losses.argmin())
        model.head.weight.copy_(heads.weight[best].T)
        model.head.bias.copy_(heads.bias[best, 0])
    return model.eval(), float(losses[best])


class _Heads(nn.Module):
    """Several linear heads as one product: float (N,P) to logits (heads,N,C)."""

    def __init__(self, n: int, dim: int, n_clusters: int) -> None:
        super().__init__()
        bound = dim**-0.5  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(n, dim, n_clusters).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n, 1, n_clusters))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.weight + self.bias


def _train_heads(
    heads: _Heads,
    z: torch.Tensor,
    near: torch.Tensor,
    config: ScanConfig,
    seed: int,
    should_stop: Callable[[], bool] | None,
) -> bool:
    """Trains all heads by the SCAN loss on fixed inputs float (N,P), on the CPU; False if it was stopped."""
    batch = min(config.head_batch_size, len(z))

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(seed, step, "scan heads")
        rows = torch.randperm(len(z), generator=generator)[:batch]
        others = near[rows, torch.randint(near.shape[1], (batch,), generator=generator)]
        return scan_losses(heads(z[rows]), heads(z[others]), config.entropy_weight).sum()

    optimizer = OptimizerConfig(learning_rate=config.head_learning_rate, weight_decay=0.01)
    training = TrainingConfig(total_steps=config.head_steps, optimizer=optimizer)
    alone = Execution("cpu", should_stop=should_stop)
    return train_networks("SCAN heads", {"heads": heads}, loss_at, training, batch, alone)


@torch.no_grad()
def _embedded(model: ScanClassifier, images: np.ndarray, device: torch.device) -> torch.Tensor:
    """The head's inputs float (N,P), of plain images, by a model on the CPU."""
    features = torch.tensor(kept_features(model.encoder, images, device))
    model.to("cpu")
    return model.embed_features(features)


def train_self_labels(
    model: ScanClassifier,
    images: np.ndarray,
    views: ViewsConfig,
    config: SelfLabelConfig,
    execution: Execution,
    seed: int = 0,
) -> bool:
    """Trains a SCAN network in place on its own confident predictions, section 2.3 of Van Gansbeke et al.

    The target for a random view is the label of the plain image, if its confidence is above `threshold`. Each
    cluster weighs the same in a batch.

    Args:
        model: From `train_scan`; in eval mode on the CPU afterwards.
        images: uint8 (N,H,W,3).
        seed: Of the batches and the views.
    """
    where = execution.where
    pixels = channels_first(images, where)
    batch = min(config.batch_size, len(pixels))
    n_clusters = int(model.config["n_classes"])

    def loss_at(step: int) -> torch.Tensor:
        # 1. confident labels
        generator = step_generator(seed, step, "self-labels")
        rows = torch.randperm(len(pixels), generator=generator)[:batch].to(where)
        x = scale(pixels[rows])
        model.eval()
        with torch.no_grad(), fast_autocast(where):
            confidence, targets = model(x).float().softmax(1).max(1)
        sure = confidence > config.threshold
        # drawn for all images, so that the draws do not depend on the confident ones
        strong = random_views(x, views, generator)
        # 2. cross-entropy on their views, clusters balanced
        model.train()
        with fast_autocast(where):
            logits = model(strong)
        counts = torch.bincount(targets[sure], minlength=n_clusters).clamp_min(1).float()
        weights = torch.where(sure, 1 / counts[targets], 0.0)
        each = F.cross_entropy(logits.float(), targets, reduction="none")
        return (each * weights).sum() / weights.sum().clamp_min(1e-8)

    return train_networks("self-labelling", {"model": model}, loss_at, config, batch, execution)


def kmeans_labels(features: np.ndarray, n_clusters: int, seed: int = 0) -> np.ndarray:
    """k-means (scikit-learn) on unit features (N,D): int64 (N,), 0..C-1; ValueError for fewer than C images."""
    if len(features) < n_clusters:
        raise ValueError(f"{n_clusters} clusters of {len(features)} images")
    found = KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(unit_length(features))
    return found.astype(np.int64)
