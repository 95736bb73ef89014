"""Training of the detector on ID images and outliers, Eq. 4-5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from ..config.nodes import DetectorConfig, TrainingConfig
from ..files import replacing
from ..nn.batches import encode
from ..nn.detector import Detector
from ..nn.device import fast_autocast
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
    snapshot_images: np.ndarray | None = None,
) -> list[np.ndarray] | None:
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
        snapshot_images: uint8 (P,H,W,3); their features before training and after every epoch are kept in files
            beside the state, which the caller removes at the end.

    Returns:
        Features float32 (P,D) of the snapshot images, before training first, then after each epoch;
        empty without them. None if training was stopped.

    Raises:
        ValueError: No images on a side, columns that do not fit, labels outside 0..C-1, or reconstructions
            that are missing.
        EncoderError: More frozen blocks than there are.
        TrainingStateError: Snapshots of the epochs before an interruption are gone; else as `run_steps`.
        TrainingDiverged, OSError: As `run_steps`.
    """
    _check(detector, id_images, id_labels, outlier_images, outlier_labels, config, reconstructions)
    # 1. set up; all draws are made on the CPU, so that every device sees the same batches
    where, state_path = execution.where, execution.state_path
    detector.encoder.freeze(config.frozen_blocks)
    pixels, fakes = channels_first(id_images, where), channels_first(outlier_images, where)
    rebuilt = channels_first(reconstructions, where) if reconstructions is not None else None
    y_in, y_out = torch.tensor(id_labels).to(where), torch.tensor(outlier_labels).to(where)
    n = len(pixels)
    steps_per_epoch = epoch_steps(n, config)
    taken: dict[int, np.ndarray] = {}

    def snapshot(epoch: int) -> None:
        """Features as they are after `epoch` epochs."""
        if snapshot_images is None:
            return
        taken[epoch] = encode(detector.encoder, snapshot_images, where)
        detector.train()
        if state_path is not None:
            _save_snapshot(snapshot_path(state_path, epoch), taken[epoch])

    def loss_at(step: int) -> torch.Tensor:
        if step == 0:
            snapshot(0)
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
        # runs before the state of this step is saved, so no state lacks its snapshots
        if step % steps_per_epoch == 0:
            snapshot(step // steps_per_epoch)

    training = TrainingConfig(
        total_steps=config.epochs * steps_per_epoch,
        optimizer=config.optimizer,
        save_every_sec=config.save_every_sec,
    )
    done = train_networks(
        "detector",
        {"detector": detector},
        loss_at,
        training,
        2 * n // steps_per_epoch,
        execution,
        after_step,
    )
    if not done:
        return None
    # 4. the snapshots of all epochs; those made before an interruption are read from their files
    epochs = range(config.epochs + 1) if snapshot_images is not None else ()
    return [taken[i] if i in taken else _read_snapshot(state_path, i) for i in epochs]


def epoch_steps(n_images: int, config: DetectorConfig) -> int:
    """Number of batches in an epoch over that many ID images."""
    return -(-n_images // (config.batch_size // 2))


def snapshot_path(state_path: Path, epoch: int) -> Path:
    """The file of the snapshot after an epoch; 0 is before training."""
    return state_path.with_name(f"snapshot-{epoch:03d}.safetensors")


def _save_snapshot(path: Path, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        save_arrays({"features": features}, partial)


def _read_snapshot(state_path: Path | None, epoch: int) -> np.ndarray:
    assert state_path is not None  # without one nothing was resumed, and every epoch ran here
    path = snapshot_path(state_path, epoch)
    try:
        return load_arrays(path)["features"]
    except (OSError, SafetensorError, KeyError) as error:
        raise TrainingStateError(
            f"{path}: gone or damaged, and the training is past it; remove {state_path} to start over"
        ) from error


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
