"""Training of the detector on ID images and outliers, Eq. 4-5."""

from __future__ import annotations

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
from ..nn.loop import Execution, TrainingStateError, train_networks
from ..nn.pixels import channels_first, scale
from ..nn.randomness import step_generator
from ..nn.views import random_views
from .losses import detector_loss


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
) -> bool:
    """Trains a detector in place; resumes from the state if it exists.

    Every batch is half ID images and half outliers. An epoch shows every ID image once, in an order fixed by
    (seed, epoch); outliers are reshuffled in the same way each time all have been shown.

    Args:
        detector: The network to start from; in eval mode on the CPU afterwards.
        id_images: uint8 (N,H,W,3).
        id_labels: int64 (N,), y~.
        outlier_images: uint8 (M,H,W,3).
        outlier_labels: int64 (M,), y~ of the sources.
        reconstructions: uint8 (N,H,W,3), shown instead of their ID images with probability
            `config.reconstructed_id`; needed if that is above 0.
        epochs_folder: Where the encoder's weights after each epoch are kept, for `load_epoch`; None keeps none.

    Returns:
        False if training was stopped.

    Raises:
        ValueError: No images on a side, columns that do not fit, labels outside 0..C-1, or reconstructions
            that are missing.
        EncoderError: More frozen blocks than there are.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    _check(detector, id_images, id_labels, outlier_images, outlier_labels, config, reconstructions)
    # 1. set up; all draws are made on the CPU, so that every device sees the same batches
    where = execution.where
    start = {name: tensor.cpu().clone() for name, tensor in detector.encoder.state_dict().items()}
    detector.encoder.freeze(config.frozen_blocks)
    pixels, fakes = channels_first(id_images, where), channels_first(outlier_images, where)
    rebuilt = channels_first(reconstructions, where) if reconstructions is not None else None
    y_in, y_out = torch.tensor(id_labels).to(where), torch.tensor(outlier_labels).to(where)
    n = len(pixels)
    steps_per_epoch = epoch_steps(n, config)

    def loss_at(step: int) -> torch.Tensor:
        # 2. as many images of each side; batches of an epoch differ in size by one at most
        epoch, turn = divmod(step, steps_per_epoch)
        first, last = (epoch * n + n * (turn + i) // steps_per_epoch for i in (0, 1))
        half = last - first
        rows = _shuffled_rows(n, first, half, config.seed, "ID").to(where)
        others = _shuffled_rows(len(fakes), first, half, config.seed, "outliers").to(where)
        generator = step_generator(config.seed, step, "detector")
        inside = pixels[rows]
        if rebuilt is not None and config.reconstructed_id:
            swapped = (torch.rand(half, 1, 1, 1, generator=generator) < config.reconstructed_id).to(where)
            inside = torch.where(swapped, rebuilt[rows], inside)
        x = random_views(scale(torch.cat([inside, fakes[others]])), config.views, generator)
        labels = torch.cat([y_in[rows], y_out[others]])
        is_outlier = torch.arange(2 * half, device=where) >= half
        # 3. the loss over views of both
        with fast_autocast(where):
            out = detector(x)
        heads = (out.g_bin.float(), out.g_in.float(), out.g_out.float())
        return detector_loss(*heads, is_outlier, labels, config.outlier_weight)

    def after_step(step: int) -> None:
        # runs before the state of this step is saved, so no state lacks the weights of its epochs
        if epochs_folder is not None and step % steps_per_epoch == 0:
            path = _epoch_file(epochs_folder, step // steps_per_epoch)
            _save_changes(start, detector.encoder, path)

    training = TrainingConfig(
        total_steps=config.epochs * steps_per_epoch,
        optimizer=config.optimizer,
        save_every_sec=config.save_every_sec,
    )
    images_per_step = 2 * n // steps_per_epoch
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
    parts: list[torch.Tensor] = []
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
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise ValueError(
                f"{name} images must be uint8 (N,H,W,3) with N at least 1, not {images.dtype} {images.shape}"
            )
        if labels.shape != (len(images),):
            raise ValueError(f"{name} labels have shape {labels.shape} for {len(images)} images")
        if labels.min() < 0 or labels.max() >= n_clusters:
            raise ValueError(f"{name} labels must lie in 0..{n_clusters - 1}")
    if outlier_images.shape[1:] != id_images.shape[1:]:
        raise ValueError(
            f"outliers {outlier_images.shape[1:]} and ID images {id_images.shape[1:]} differ in size"
        )
    if config.reconstructed_id and (reconstructions is None or reconstructions.shape != id_images.shape):
        raise ValueError("reconstructed_id needs a reconstruction of every ID image")
