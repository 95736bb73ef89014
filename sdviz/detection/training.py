"""Training of the detector on ID images and outliers, Eq. 4-5."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from ..config import DetectorConfig
from ..nn.detector import Detector
from ..nn.device import has_fast_bf16, resolve_device
from ..nn.encoder import encode
from ..nn.loop import LoopReport, cosine_rate, make_optimizer, run_steps, step_dice
from ..nn.views import random_views
from .losses import detector_loss


def train_detector(
    detector: Detector,
    id_images: np.ndarray,
    id_labels: np.ndarray,
    outlier_images: np.ndarray,
    outlier_labels: np.ndarray,
    config: DetectorConfig,
    reconstructions: np.ndarray | None = None,
    snapshot_images: np.ndarray | None = None,
    state_path: Path | None = None,
    device: str = "auto",
    on_report: Callable[[LoopReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[np.ndarray] | None:
    """Trains a detector in place; resumes from `state_path` where that is.

    Every batch is half ID images and half outliers. An epoch shows every ID image once, in an order
    fixed by (seed, epoch), but for those that fill no batch at its end; outliers are dealt likewise
    from as many shuffled decks as it takes.

    Args:
        detector: The network to start from; in eval mode on the CPU afterwards.
        id_images: uint8 (N,H,W,3).
        id_labels: int64 (N,), y~.
        outlier_images: uint8 (M,H,W,3).
        outlier_labels: int64 (M,), y~ of the sources.
        config: How to train.
        reconstructions: uint8 (N,H,W,3), shown in the place of an ID image with probability
            `config.reconstructed_id`; needed where that is above 0.
        snapshot_images: uint8 (P,H,W,3), whose features are kept before training and after every epoch.
        state_path: Where to keep the resume state; snapshots lie beside it.
        device: "auto", "cpu", "cuda", ...
        on_report: Called every few steps.
        should_stop: Asked before every step.

    Returns:
        Features float32 (P,D) of the snapshot images, before training first, then after each epoch;
        empty without them. None if training was stopped.

    Raises:
        ValueError: No images on a side, columns that do not fit, or reconstructions that are missing.
        EncoderError: More frozen blocks than there are.
        TrainingDiverged, TrainingStateError, OSError: As `run_steps`.
    """
    _check(id_images, id_labels, outlier_images, outlier_labels, config, reconstructions)

    # --- set up -----------------------------------------------------------------------------------
    where = resolve_device(device)
    detector.encoder.freeze(config.frozen_blocks)
    detector.to(where).train()
    optimizer = make_optimizer([p for p in detector.parameters() if p.requires_grad], config.optimizer)
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=has_fast_bf16(where))
    pixels, fakes = _pixels(id_images, where), _pixels(outlier_images, where)
    rebuilt = _pixels(reconstructions, where) if reconstructions is not None else None
    y_in, y_out = torch.tensor(id_labels).to(where), torch.tensor(outlier_labels).to(where)
    half = min(config.batch_size // 2, len(pixels))
    steps_per_epoch = len(pixels) // half
    total_steps = config.epochs * steps_per_epoch
    is_outlier = torch.arange(2 * half, device=where) >= half

    # --- snapshots --------------------------------------------------------------------------------
    # kept as files, so that those of epochs before an interruption are there after it
    kept: dict[int, np.ndarray] = {}

    def snapshot(epoch: int) -> None:
        if snapshot_images is None:
            return
        file = None if state_path is None else state_path.with_name(f"snapshot-{epoch:03d}.safetensors")
        if file is not None and file.is_file():
            kept[epoch] = load_arrays(file)["features"]
            return
        kept[epoch] = encode(detector.encoder, snapshot_images, where)
        detector.train()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(file.name + ".partial")
            save_arrays({"features": kept[epoch]}, partial)
            os.replace(partial, file)

    # --- loop -------------------------------------------------------------------------------------
    def one_step(step: int) -> torch.Tensor:
        epoch, turn = divmod(step, steps_per_epoch)
        if turn == 0:
            snapshot(epoch)
        # 1. half a batch of each side
        rows = _deal(len(pixels), half, turn, config.seed, f"id {epoch}").to(where)
        others = _deal(len(fakes), half, step, config.seed, "outliers").to(where)
        dice = step_dice(config.seed, step, "detector")
        inside = pixels[rows]
        if rebuilt is not None and config.reconstructed_id:
            swapped = (torch.rand(half, generator=dice) < config.reconstructed_id).to(where)
            inside = torch.where(swapped[:, None, None, None], rebuilt[rows], inside)
        x = torch.cat([inside, fakes[others]]).to(torch.float32) / 127.5 - 1.0
        labels = torch.cat([y_in[rows], y_out[others]])
        # 2. Eq. 4
        with autocast:
            out = detector(random_views(x, config.views, dice))
        heads = (out.g_bin.float(), out.g_in.float(), out.g_out.float())
        loss = detector_loss(*heads, is_outlier, labels, config.outlier_weight)
        # 3. step
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(step, total_steps, config.optimizer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    done = run_steps(
        "detector",
        total_steps,
        one_step,
        {"detector": detector, "optimizer": optimizer},
        2 * half,
        state_path,
        config.save_every_sec,
        on_report,
        should_stop,
    )
    if done:
        for epoch in range(config.epochs + 1):
            if epoch not in kept:
                snapshot(epoch)
    detector.to("cpu").eval()
    return [kept[epoch] for epoch in sorted(kept)] if done else None


def _deal(n: int, size: int, turn: int, seed: int, purpose: str) -> torch.Tensor:
    """Rows of batch number `turn`: decks of n shuffled cards, one after the other, dealt in hands of `size`."""
    first = turn * size
    rows: list[int] = []
    while len(rows) < size:
        deck, place = divmod(first + len(rows), n)
        order = torch.randperm(n, generator=step_dice(seed, deck, f"deck of {purpose}"))
        rows += order[place : place + size - len(rows)].tolist()
    return torch.tensor(rows)


def _pixels(images: np.ndarray, where: torch.device) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous().to(where)


def _check(
    id_images: np.ndarray,
    id_labels: np.ndarray,
    outlier_images: np.ndarray,
    outlier_labels: np.ndarray,
    config: DetectorConfig,
    reconstructions: np.ndarray | None,
) -> None:
    for name, images, labels in (("ID", id_images, id_labels), ("outlier", outlier_images, outlier_labels)):
        if len(images) == 0 or images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"{name} images must be uint8 (N,H,W,3), N at least 1, not {images.shape}")
        if labels.shape != (len(images),):
            raise ValueError(f"{name} labels: shape {labels.shape}, but there are {len(images)} images")
    if config.reconstructed_id and (reconstructions is None or len(reconstructions) != len(id_images)):
        raise ValueError("detector.reconstructed_id needs a reconstruction of every ID image")
