"""Training of the detector on ID images and outliers, Eq. 4-5."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..config.nodes import DetectorConfig, TrainingConfig
from ..files import replacing
from ..nn.detector import Detector
from ..nn.device import fast_autocast
from ..nn.encoder import Encoder
from ..nn.feature_cache import has_small_activations, kept_activations, kept_features
from ..nn.loop import Execution, TrainingStateError, train_networks
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views
from .losses import detector_loss, distillation_loss, neighbour_loss


def train_detector(
    detector: Detector,
    id_images: np.ndarray,
    id_labels: np.ndarray,
    outlier_images: np.ndarray,
    outlier_labels: np.ndarray,
    config: DetectorConfig,
    execution: Execution,
    reconstructions: np.ndarray | None = None,
    epochs_folder: Path | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> bool:
    """Trains a detector in place; resumes from the state if it exists.

    Every batch is half ID images and half outliers, or that half of ID images alone if there are no outliers.
    An epoch shows every ID image once, in an order fixed by (seed, epoch); outliers are reshuffled in the same
    way each time all have been shown. With `head_epochs` the heads are trained alone first, on fixed features
    of plain images (LP-FT, Kumar et al. 2022).

    Args:
        detector: The network to start from; in eval mode on the CPU afterwards.
        id_images: uint8 (N,H,W,3).
        id_labels: int64 (N,), y~.
        outlier_images: uint8 (M,H,W,3), M 0 or more.
        outlier_labels: int64 (M,), y~ of the sources.
        reconstructions: uint8 (N,H,W,3), shown instead of their ID images with probability
            `config.reconstructed_id`; needed if that is above 0.
        epochs_folder: Where the encoder's weights after each epoch are kept, for `load_epoch`; None keeps none.
        after_epoch: Called with the number of epochs done, after each; it may put the network into eval mode.

    Returns:
        False if training was stopped.

    Raises:
        ValueError: No ID images, columns that do not fit, labels outside 0..C-1, or reconstructions
            that are missing.
        EncoderError: More frozen blocks than there are.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    _check(detector, id_images, id_labels, outlier_images, outlier_labels, config, reconstructions)
    # 1. set up; all draws are made on the CPU, so that every device sees the same batches
    where = execution.where
    start = {name: tensor.cpu().clone() for name, tensor in detector.encoder.state_dict().items()}
    detector.encoder.freeze(config.frozen_blocks)
    teacher = copy.deepcopy(detector.encoder).to(where).eval() if config.distillation else None
    detector.frozen_batch_norm = config.frozen_batch_norm
    y_in, y_out = torch.tensor(id_labels).to(where), torch.tensor(outlier_labels).to(where)

    def batches_of(rows_of: Callable[[np.ndarray], torch.Tensor]) -> _Batches:
        rebuilt = rows_of(reconstructions) if reconstructions is not None else None
        inside = rows_of(id_images)
        outside = rows_of(outlier_images) if len(outlier_images) else inside[:0]
        return _Batches(inside, outside, rebuilt, y_in, y_out, config)

    # plain images are the same in each step: what frozen blocks make of them is computed once
    from_activations = config.views is None and has_small_activations(detector.encoder, id_images)
    if from_activations:
        batches = batches_of(
            lambda images: torch.tensor(kept_activations(detector.encoder, images, where)).to(where)
        )
    else:
        batches = batches_of(lambda images: channels_first(images, where))
    steps_per_epoch = epoch_steps(len(id_images), config)

    # 2. the heads alone, on fixed features; a resumed training has them in its state
    is_resumed = execution.state_path is not None and execution.state_path.exists()
    if config.head_epochs and not is_resumed:
        plain = batches_of(
            lambda images: torch.tensor(kept_features(detector.encoder, images, where)).to(where)
        )
        if not _train_heads(detector, plain, execution):
            return False  # nothing is saved, because a state means that the heads are done

    def loss_at(step: int) -> torch.Tensor:
        # 3. the loss over both sides
        generator = step_generator(config.seed, step, "detector")
        images, is_outlier, labels = batches.at(step, generator)
        x = images if from_activations else random_views(scale(images), config.views, generator)
        with fast_autocast(where):
            out = detector.heads(detector.encoder.features_of(x)) if from_activations else detector(x)
            near = config.bin_loss == "neighbours"
            g_bin = detector.heads(out.features.detach()).g_bin if near else out.g_bin
        heads = (g_bin.float(), out.g_in.float(), out.g_out.float())
        loss = detector_loss(*heads, is_outlier, labels, config.outlier_weight)
        if near:
            loss = loss + neighbour_loss(out.features, is_outlier)
        if teacher is not None:
            with torch.no_grad(), fast_autocast(where):
                before = teacher.features_of(x) if from_activations else teacher(x)
            loss = loss + config.distillation * distillation_loss(out.features, before)
        return loss

    def after_step(step: int) -> None:
        # runs before the state of this step is saved, so no state lacks the weights of its epochs
        if step % steps_per_epoch:
            return
        epoch = step // steps_per_epoch
        if epochs_folder is not None:
            _save_changes(start, detector.encoder, _epoch_file(epochs_folder, epoch))
        if after_epoch is not None:
            after_epoch(epoch)
            detector.train()

    training = TrainingConfig(
        total_steps=config.epochs * steps_per_epoch,
        optimizer=config.optimizer,
        save_every_sec=config.save_every_sec,
    )
    images_per_step = 2 * len(id_images) // steps_per_epoch
    networks = {"detector": detector}
    return train_networks("detector", networks, loss_at, training, images_per_step, execution, after_step)


def epoch_steps(n_images: int, config: DetectorConfig) -> int:
    """Number of batches in an epoch over that many ID images."""
    return -(-n_images // (config.batch_size // 2))


def load_epoch(encoder: Encoder, folder: Path, epoch: int) -> None:
    """Puts the weights after an epoch, 1 or more, into the encoder that training started from.

    Raises:
        TrainingStateError: The file is missing or damaged.
    """
    path = _epoch_file(folder, epoch)
    try:
        encoder.load_state_dict(encoder.state_dict() | load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingStateError(f"{path}: gone or damaged; train the detector again") from error


@dataclass(frozen=True, eq=False)
class _Batches:
    """The two sides of a training on one device, as images uint8 (N,3,H,W) or as features float32 (N,D)."""

    inside: torch.Tensor
    outside: torch.Tensor
    rebuilt: torch.Tensor | None  # of the rows in `inside`
    id_labels: torch.Tensor
    outlier_labels: torch.Tensor
    config: DetectorConfig

    def at(self, step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The rows of a step, as many of each side: ID before outliers; is_outlier and y~ of each.

        Batches of an epoch differ in size by one on a side at most.
        """
        n, seed, where = len(self.inside), self.config.seed, self.inside.device
        epoch, turn = divmod(step, steps := epoch_steps(n, self.config))
        first, last = (epoch * n + n * (turn + i) // steps for i in (0, 1))
        half = last - first
        rows = _shuffled_rows(n, first, half, seed, "ID").to(where)
        n_others = half if len(self.outside) else 0
        others = _shuffled_rows(len(self.outside), first, n_others, seed, "outliers").to(where)
        inside = self.inside[rows]
        if self.rebuilt is not None and self.config.reconstructed_id:
            draws = torch.rand(half, *[1] * (inside.ndim - 1), generator=generator)
            inside = torch.where((draws < self.config.reconstructed_id).to(where), self.rebuilt[rows], inside)
        labels = torch.cat([self.id_labels[rows], self.outlier_labels[others]])
        is_outlier = torch.arange(half + n_others, device=where) >= half
        return torch.cat([inside, self.outside[others]]), is_outlier, labels


def _train_heads(detector: Detector, batches: _Batches, execution: Execution) -> bool:
    """Trains the three heads by Eq. 4 on fixed features; False if it was stopped."""
    config = batches.config

    def loss_at(step: int) -> torch.Tensor:
        generator = step_generator(config.seed, step, "detector's heads")
        features, is_outlier, labels = batches.at(step, generator)
        return detector_loss(*detector.heads(features)[1:], is_outlier, labels, config.outlier_weight)

    training = TrainingConfig(
        total_steps=config.head_epochs * epoch_steps(len(batches.inside), config),
        optimizer=config.optimizer.model_copy(update={"learning_rate": config.head_learning_rate}),
    )
    heads = {name: getattr(detector, name) for name in ("g_bin", "g_in", "g_out")}
    alone = Execution(execution.device, should_stop=execution.should_stop)
    return train_networks("detector's heads", heads, loss_at, training, config.batch_size, alone)


def _epoch_file(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:03d}.safetensors"


def _save_changes(start: dict[str, torch.Tensor], encoder: Encoder, path: Path) -> None:
    """Keeps the tensors that training has changed: none of frozen blocks."""
    now = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    changed = {
        name: tensor.contiguous() for name, tensor in now.items() if not torch.equal(tensor, start[name])
    }
    with replacing(path) as partial:
        save_file(changed, partial)


def _shuffled_rows(n: int, first: int, size: int, seed: int, side: str) -> torch.Tensor:
    """Entries `first` to `first + size` of an endless list of shuffles of n rows, int64 (size,)."""
    parts = [torch.empty(0, dtype=torch.int64)]
    while size > 0:
        turn, place = divmod(first, n)
        order = torch.randperm(n, generator=step_generator(seed, turn, f"detector's order of {side}"))
        parts.append(order[place : place + size])
        first, size = first + len(parts[-1]), size - len(parts[-1])
    return torch.cat(parts)


def _check(
    detector: Detector,
    id_images: np.ndarray,
    id_labels: np.ndarray,
    outlier_images: np.ndarray,
    outlier_labels: np.ndarray,
    config: DetectorConfig,
    reconstructions: np.ndarray | None,
) -> None:
    n_clusters = detector.g_in.out_features
    for name, images, labels in (("ID", id_images, id_labels), ("outlier", outlier_images, outlier_labels)):
        least = 1 if name == "ID" else 0
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) < least:
            raise ValueError(
                f"{name} images must be uint8 (N,H,W,3) with N at least {least},"
                f" not {images.dtype} {images.shape}"
            )
        if labels.shape != (len(images),):
            raise ValueError(f"{name} labels have shape {labels.shape} for {len(images)} images")
        if len(labels) and (labels.min() < 0 or labels.max() >= n_clusters):
            raise ValueError(f"{name} labels must lie in 0..{n_clusters - 1}")
    if outlier_images.shape[1:] != id_images.shape[1:]:
        raise ValueError(
            f"outliers {outlier_images.shape[1:]} and ID images {id_images.shape[1:]} differ in size"
        )
    if config.reconstructed_id and (reconstructions is None or reconstructions.shape != id_images.shape):
        raise ValueError("reconstructed_id needs a reconstruction of every ID image")
