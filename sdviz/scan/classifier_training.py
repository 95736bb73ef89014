"""Training of the clusterer on labels that were given."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from ..config import ClustererConfig
from ..data.imageset import hash_words
from ..nn.classifier import SmallClassifier
from ..nn.device import has_fast_bf16, resolve_device

REPORT_EVERY_STEPS = 20


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    config: ClustererConfig,
    seed: int = 0,
    device: str = "auto",
    on_report: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SmallClassifier | None:
    """Minimises the cross-entropy over shifted, flipped and recoloured images, with AdamW.

    All randomness of a step comes from (seed, step): the result is the same at equal thread count.

    Args:
        images: uint8 (N,H,W,3).
        labels: int64 (N,), 0..C-1.
        n_classes: C.
        config: How to train.
        seed: Of the first weights, the batches and the augmentation.
        device: "auto", "cpu", "cuda", ...
        on_report: Called every few steps with the steps done and the mean loss since the last call.
        should_stop: Asked before every step.

    Returns:
        The network in eval mode on the CPU; None if it was stopped.

    Raises:
        ValueError: No images, or labels outside 0..C-1.
        FloatingPointError: The loss became NaN or infinite.
    """
    if len(images) == 0:
        raise ValueError("no images to train on")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"training labels must lie in 0..{n_classes - 1}")

    # --- set up -----------------------------------------------------------------------------------
    where = resolve_device(device)
    torch.manual_seed(seed)
    model = SmallClassifier(n_classes, config.width).to(where).train()
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    # drawn on the CPU, so that every device sees the same batches
    pixels, targets = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=has_fast_bf16(where))

    # --- loop -------------------------------------------------------------------------------------
    loss_sum, loss_steps = torch.zeros((), device=where), 0
    for step in range(config.total_steps):
        if should_stop is not None and should_stop():
            return None
        # hashed, because the CPU's generator takes 32 bits of a seed and forgets the rest
        generator = torch.Generator().manual_seed(int(hash_words(np.array([step], np.uint64), seed)[0]) >> 32)
        rows = torch.randint(len(pixels), (config.batch_size,), generator=generator)
        x = augment(pixels[rows].to(torch.float32) / 127.5 - 1.0, config, generator).to(where)
        with autocast:
            logits = model(x)
        loss = F.cross_entropy(logits.float(), targets[rows].to(where))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_factor(step, config.total_steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach()
        loss_steps += 1
        done = step + 1
        if done % REPORT_EVERY_STEPS == 0 or done == config.total_steps:
            mean_loss = float(loss_sum) / loss_steps
            if not math.isfinite(mean_loss):
                raise FloatingPointError(
                    f"the clusterer's loss became {mean_loss} at step {done} of {config.total_steps}:"
                    f" try a learning rate below {config.learning_rate:g}"
                )
            if on_report is not None:
                on_report(done, mean_loss)
            loss_sum.zero_()
            loss_steps = 0
    return model.to("cpu").eval()


def rate_factor(step: int, total_steps: int) -> float:
    """Learning rate over its peak: a linear rise over the first tenth, times half a cosine down to 0."""
    rise = min(1.0, (step + 1) / (0.1 * total_steps))
    return rise * (1 + math.cos(math.pi * step / total_steps)) / 2


def augment(x: torch.Tensor, config: ClustererConfig, generator: torch.Generator) -> torch.Tensor:
    """Shifts, flips and recolours each image by itself.

    Args:
        x: float32 (N,3,H,W) in [-1,1], on the CPU.
        config: How much.
        generator: Where the draws come from.

    Returns:
        float32 (N,3,H,W) in [-1,1].
    """
    n, _, height, width = x.shape
    # 1. shift by whole pixels, the border mirrored
    reach = min(config.max_shift_px, height - 1, width - 1)
    if reach:
        padded = F.pad(x, (reach,) * 4, mode="reflect")
        offsets = torch.randint(2 * reach + 1, (2, n), generator=generator)
        rows = (offsets[0, :, None] + torch.arange(height))[:, None, :, None]
        columns = (offsets[1, :, None] + torch.arange(width))[:, None, None, :]
        x = padded[torch.arange(n)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    # 2. flip left and right
    if config.random_flip:
        flipped = torch.rand(n, generator=generator) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    # 3. brightness, contrast about the image's mean, saturation about each pixel's grey
    if config.colour_jitter:
        brightness, contrast, saturation = (
            1 + config.colour_jitter * (2 * torch.rand(3, n, 1, 1, 1, generator=generator) - 1)
        ).unbind()
        x = (x + 1) * brightness - 1
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = mean + (x - mean) * contrast
        grey = x.mean(dim=1, keepdim=True)
        x = (grey + (x - grey) * saturation).clamp(-1, 1)
    return x


@torch.no_grad()
def accuracy(
    model: SmallClassifier, images: np.ndarray, labels: np.ndarray, batch_size: int = 500
) -> tuple[float, int]:
    """The share of labelled images whose label the model gives, in 0..1, and how many there were.

    Args:
        model: In eval mode.
        images: uint8 (N,H,W,3).
        labels: int64 (N,), -1 where unknown.
        batch_size: Images at a time.

    Raises:
        ValueError: Not one labelled image.
    """
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise ValueError("no labelled images to measure the accuracy on")
    where = next(model.parameters()).device
    right = 0
    for first in range(0, len(known), batch_size):
        rows = known[first : first + batch_size]
        x = torch.tensor(images[rows]).permute(0, 3, 1, 2).to(where, torch.float32) / 127.5 - 1.0
        right += int((model(x).argmax(1).cpu().numpy() == labels[rows]).sum())
    return right / len(known), len(known)
