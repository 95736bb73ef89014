"""Partial diffusion: noises images to step S and denoises them under other labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..diffusion.guidance import GuidedNoise, NoisePrediction
from ..diffusion.samplers import SAMPLERS
from ..diffusion.sampling import Callback, Sampling
from ..diffusion.schedule import NoiseSchedule
from ..diffusion.together import sample_together
from ..nn.batches import slices
from ..nn.pixels import to_images, to_tensor
from ..nn.randomness import image_noise
from .recipe import Recipe

_GroupCallback = Callable[[int, int, torch.Tensor, torch.Tensor], None]


class SamplingDiverged(RuntimeError):
    """The noise predictor gave NaN or infinite numbers."""


def check_finite(x_0: torch.Tensor) -> None:
    """Raises SamplingDiverged if an image has NaN or infinite numbers."""
    if not torch.isfinite(x_0).all():
        raise SamplingDiverged("the U-Net answered with NaN or infinite numbers: it has to be trained again")


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """A noise predictor and what sampling needs to know about it.

    Attributes:
        predict: Takes (x, timesteps, class_labels) to the noise, on `device`.
        null_label: The class that means "no condition".
    """

    predict: NoisePrediction
    schedule: NoiseSchedule
    null_label: int
    device: torch.device


@dataclass(frozen=True, eq=False)
class OutlierRequest:
    """One outlier to make.

    Attributes:
        id: Of the source image; with the recipe's seed, it fixes the noise.
        image: uint8 (H,W,3), the source image.
        label: y~ of the source image.
        target_label: c_r, the label it is denoised under; y~ gives the control.
    """

    id: str
    image: np.ndarray
    label: int
    target_label: int
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class Outlier:
    """The outlier made for an `OutlierRequest`.

    Attributes:
        image: uint8 (H,W,3).
        noised: uint8 (H,W,3), x_S clipped to the grey levels.
        trajectory: uint8 (K,H,W,3), the x_0 prediction of each step; None unless requested.
        network_calls: Forward passes of the network; a doubled batch counts once.
        evaluations: How often the network saw this image; conditional and unconditional count apart.
        elapsed_sec: This image's share of the batch's wall time.
    """

    image: np.ndarray
    noised: np.ndarray
    trajectory: np.ndarray | None
    network_calls: int
    evaluations: int
    elapsed_sec: float


@dataclass(frozen=True, eq=False)
class OutlierBatch:
    """Outliers of many images by one recipe, row by row with their sources.

    Attributes:
        outliers: uint8 (N,H,W,3).
        noised: uint8 (N,H,W,3), x_S clipped to the grey levels.
        labels: int64 (N,), y~ of the sources.
        target_labels: int64 (N,), c_r, the condition.
        ids: str (N,), of the sources.
        network_calls: Forward passes of the network; a doubled batch counts once.
        evaluations: How often the network saw each image; conditional and unconditional count apart.
        elapsed_sec: Wall time of sampling.
    """

    outliers: np.ndarray
    noised: np.ndarray
    labels: np.ndarray
    target_labels: np.ndarray
    ids: np.ndarray
    recipe: Recipe
    network_calls: int
    evaluations: int
    elapsed_sec: float

    def __len__(self) -> int:
        return len(self.outliers)


def check_images(images: np.ndarray, image_size: int) -> np.ndarray:
    """The images as an array; ValueError for anything but uint8 (N,size,size,3), N at least 1."""
    images = np.asarray(images)
    expected = (image_size, image_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        wanted = f"uint8 (N,{image_size},{image_size},3)"
        raise ValueError(f"images must be {wanted}, not {images.dtype} {images.shape}")
    if len(images) == 0:
        raise ValueError("no images were given")
    return images


def generate_outliers(
    model: DiffusionModel,
    images: np.ndarray,
    labels: np.ndarray,
    target_labels: np.ndarray,
    ids: np.ndarray,
    recipe: Recipe,
    batch_size: int = 64,
    callback: Callback | None = None,
) -> OutlierBatch:
    """Noises images to S and denoises them under the target labels.

    Args:
        images: uint8 (N,H,W,3).
        labels: int64 (N,), y~; only stored in the result.
        target_labels: int64 (N,), the condition; the right label gives the control.
        ids: str (N,); with the seed, they fix each image's noise.
        recipe: Checked by the caller.
        batch_size: Images at a time; the result does not depend on it beyond rounding.
        callback: Called with (step, x_t, x_0 prediction) at each step of each batch in turn.

    Raises:
        ValueError: A batch size below 1.
        SamplingDiverged: An outlier has NaN or infinite numbers.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not at least 1")
    started = time.perf_counter()
    labels, target_labels = np.asarray(labels, np.int64), np.asarray(target_labels, np.int64)
    ids = np.asarray(ids, str)
    columns = zip(ids.tolist(), images, labels.tolist(), target_labels.tolist(), strict=True)
    requests = [OutlierRequest(*row, recipe) for row in columns]
    on_step = None if callback is None else lambda _, *step: callback(*step)
    made: list[Outlier] = []
    calls = 0
    for rows in slices(len(requests), batch_size):
        (part,) = _denoise(model, [requests[rows]], on_step)
        calls += part[0].network_calls
        made += part
    return OutlierBatch(
        np.stack([one.image for one in made]),
        np.stack([one.noised for one in made]),
        labels,
        target_labels,
        ids,
        recipe,
        calls,
        made[0].evaluations,
        time.perf_counter() - started,
    )


def generate_together(
    model: DiffusionModel,
    requests: Sequence[OutlierRequest],
    on_progress: Callable[[float], None] | None = None,
    trajectory: bool = False,
) -> list[Outlier]:
    """Makes outliers by several recipes in one batch: the network is called once a step for all of them.

    Args:
        requests: Checked by the caller.
        on_progress: Called with the share done, 0..1, after each step; an error in it ends the sampling.
        trajectory: Keep the x_0 prediction of each step.
    """
    rows_of: dict[Recipe, list[int]] = {}
    for row, one in enumerate(requests):
        rows_of.setdefault(one.recipe, []).append(row)
    groups = [[requests[row] for row in rows] for rows in rows_of.values()]
    n_steps = max(min(recipe.num_inference_steps, recipe.start_timestep) for recipe in rows_of)
    last = -1

    def on_step(group: int, step: int, x_t: torch.Tensor, x_0: torch.Tensor) -> None:
        nonlocal last
        # once a step, not once a recipe
        if on_progress is not None and step > last:
            last = step
            on_progress((step + 1) / n_steps)

    parts = _denoise(model, groups, on_step, trajectory)
    rows = [row for group in rows_of.values() for row in group]
    made = dict(zip(rows, [one for part in parts for one in part], strict=True))
    return [made[row] for row in range(len(requests))]


def _denoise(
    model: DiffusionModel,
    groups: Sequence[Sequence[OutlierRequest]],
    callback: _GroupCallback | None,
    trajectory: bool = False,
) -> list[list[Outlier]]:
    """Makes the pictures of several groups together; each group has one recipe."""
    started = time.perf_counter()
    predictions: list[list[np.ndarray]] = [[] for _ in groups]

    def on_step(group: int, step: int, x_t: torch.Tensor, x_0: torch.Tensor) -> None:
        if trajectory:
            predictions[group].append(to_images(x_0))
        if callback is not None:
            callback(group, step, x_t, x_0)

    # 1. noise to S: q(x_S | x_0)
    runs = [_noised(model, group, partial(on_step, i)) for i, group in enumerate(groups)]
    # 2. guided denoising (Eq. 3), one step of all groups at a time
    finished = sample_together(runs)
    each_sec = (time.perf_counter() - started) / sum(map(len, groups))
    # 3. back to grey levels
    made: list[list[Outlier]] = []
    for (guided, sampling), x_0, path in zip(runs, finished, predictions, strict=True):
        check_finite(x_0)
        evaluations = sum(guided.evaluations(t) for t in sampling.timesteps)
        paths = list(np.stack(path, 1)) if path else [None] * len(x_0)
        rows = zip(to_images(x_0), to_images(sampling.x), paths, strict=True)
        rest = (len(sampling.timesteps), evaluations, each_sec)
        made.append([Outlier(image, noised, steps, *rest) for image, noised, steps in rows])
    return made


def _noised(
    model: DiffusionModel, group: Sequence[OutlierRequest], callback: Callback
) -> tuple[GuidedNoise, Sampling]:
    """Noises the images of one recipe to x_S; the sampling that denoises them, not yet run."""
    recipe, ids, schedule = group[0].recipe, [one.id for one in group], model.schedule
    x = to_tensor(np.stack([one.image for one in group]), model.device)
    target_labels = torch.tensor([one.target_label for one in group], device=model.device)

    def noise(purpose: str) -> torch.Tensor:
        return image_noise(ids, x.shape[1:], recipe.seed, purpose).to(model.device)

    x_s = schedule.add_noise(x, noise("start"), recipe.start_timestep) if recipe.start_timestep else x
    guided = GuidedNoise(
        model.predict,
        target_labels,
        model.null_label,
        recipe.guidance_scale,
        schedule,
        recipe.guidance_interval,
    )
    timesteps = schedule.timesteps(recipe.start_timestep, recipe.num_inference_steps)
    return guided, Sampling(
        SAMPLERS[recipe.solver],
        x_s,
        timesteps,
        schedule,
        recipe.eta,
        lambda t: noise(f"step {t}"),
        callback,
    )
