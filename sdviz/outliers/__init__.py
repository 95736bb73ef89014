"""Semantic-discrepant outliers: Eq. 2, noising to S, guided denoising, and where each one came from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..diffusion.guidance import GuidedNoise, NoisePrediction
from ..diffusion.samplers import SAMPLERS, STEPS, Callback, Steps
from ..diffusion.schedule import NoiseSchedule
from ..diffusion.together import sample_together
from ..nn.pixels import to_images, to_tensor
from ..nn.randomness import derive_seed, image_noise

MAX_GUIDANCE_SCALE = 20.0


class SamplingDiverged(RuntimeError):
    """The noise predictor's answers are no longer numbers."""


@dataclass(frozen=True)
class Recipe:
    """How outliers are made; everything that a manifest must record.

    Attributes:
        start_timestep: S, the number of noising steps.
        guidance_scale: w of Eq. 3.
        num_inference_steps: K, network calls from x_S to x_0; above S it means S.
        solver: A name in `SAMPLERS`.
        eta: DDIM's share of fresh noise, 0..1.
        guidance_interval: (sigma_lo, sigma_hi), or None for guidance everywhere.
        seed: Fixes, with an image's id, its noise and its wrong label.
    """

    start_timestep: int
    guidance_scale: float
    num_inference_steps: int
    solver: str
    eta: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    seed: int = 0

    def check(self, max_train_timestep: int) -> None:
        """Raises ValueError, naming the value and its range, where a field is out of it."""
        _check_range("start_timestep S", self.start_timestep, 0, max_train_timestep, whole=True)
        _check_range("guidance_scale w", self.guidance_scale, -1, MAX_GUIDANCE_SCALE)
        _check_range("num_inference_steps", self.num_inference_steps, 1, 1000, whole=True)
        _check_range("eta", self.eta, 0, 1)
        _check_range("seed", self.seed, 0, 2**63 - 1, whole=True)
        if self.solver not in SAMPLERS:
            raise ValueError(f"solver {self.solver!r} is not one of {', '.join(SAMPLERS)}")
        if self.guidance_interval is not None:
            interval = self.guidance_interval
            pair = isinstance(interval, tuple | list) and len(interval) == 2
            if not pair or not all(map(_is_real, interval)) or not 0 <= interval[0] <= interval[1]:
                raise ValueError(
                    f"guidance_interval {interval!r} is not (sigma_lo, sigma_hi) with 0 <= sigma_lo <= sigma_hi"
                )


def _is_real(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _check_range(name: str, value: float, low: float, high: float, whole: bool = False) -> None:
    # 100.0 is no whole number here: it would draw other noise than 100, and ranges refuse it
    if not _is_real(value) or np.isnan(value) or (whole and not isinstance(value, int | np.integer)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} = {value!r} is not {kind} in {low}..{high}")
    if not low <= value <= high:
        raise ValueError(f"{name} = {value} is outside {low}..{high}")


@dataclass(frozen=True, eq=False)
class OutlierBatch:
    """Outliers, row by row with their sources.

    Attributes:
        outliers: uint8 (N,H,W,3).
        noised: uint8 (N,H,W,3), x_S clipped to the grey levels.
        labels: int64 (N,), y~ of the sources.
        target_labels: int64 (N,), c_r, the condition.
        ids: str (N,), of the sources.
        recipe: How they were made.
        network_calls: Forward passes of the network, a doubled batch counted once.
        evaluations: How often the network saw each image, conditional and unconditional counted apart.
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


def manifest_row(
    recipe: Recipe,
    schedule: NoiseSchedule,
    class_names: tuple[str, ...],
    source_id: str,
    label: int,
    target_label: int,
    bundle_hash: str,
) -> dict[str, str | int | float]:
    """One line of a manifest.csv: where an outlier came from and how it was made.

    Args:
        recipe: How.
        schedule: Gives sigma.
        class_names: Of the clusters.
        source_id: The source image's id.
        label: y~.
        target_label: c_r.
        bundle_hash: `Bundle.hash` of its maker.
    """
    low, high = recipe.guidance_interval or ("", "")
    return {
        "source_id": source_id,
        "label": label,
        "label_name": class_names[label],
        "target_label": target_label,
        "target_name": class_names[target_label],
        "S": recipe.start_timestep,
        "sigma": round(schedule.sigma(recipe.start_timestep), 6),
        "w": recipe.guidance_scale,
        "guidance_sigma_lo": low,
        "guidance_sigma_hi": high,
        "solver": recipe.solver,
        "steps": min(recipe.num_inference_steps, recipe.start_timestep),
        "eta": recipe.eta,
        "seed": recipe.seed,
        "bundle_sha256": bundle_hash,
    }


def draw_target_labels(labels: np.ndarray, ids: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Eq. 2: c_r ~ Uniform({0..C-1} without y~), from (seed, id) alone.

    Args:
        labels: int64 (N,), y~.
        ids: str (N,).
        n_classes: C.
        seed: The user's seed.

    Returns:
        int64 (N,).

    Raises:
        ValueError: C below 2, when no other label exists, or a label outside 0..C-1.
    """
    if n_classes < 2:
        raise ValueError(f"a wrong label needs at least 2 clusters, there is {n_classes}")
    labels = np.asarray(labels, np.int64)
    check_labels("labels", labels, n_classes)
    draws = [derive_seed(seed, i, "target") % (n_classes - 1) for i in np.asarray(ids, str).tolist()]
    skipped = np.array(draws, np.int64).reshape(-1)
    return skipped + (skipped >= labels)


def check_labels(name: str, labels: np.ndarray, n_classes: int) -> None:
    """Raises ValueError where a label is outside 0..C-1."""
    bad = labels[(labels < 0) | (labels >= n_classes)]
    if len(bad):
        raise ValueError(f"{name}: {int(bad[0])} is outside 0..{n_classes - 1}")


def check_images(images: np.ndarray, image_size: int) -> np.ndarray:
    """The images as an array.

    Raises:
        ValueError: Anything but uint8 (N,size,size,3), N at least 1.
    """
    images = np.asarray(images)
    expected = (image_size, image_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        wanted = f"uint8 (N,{image_size},{image_size},3)"
        raise ValueError(f"images must be {wanted}, not {images.dtype} {images.shape}")
    if len(images) == 0:
        raise ValueError("no images were given")
    return images


def generate_outliers(
    model: NoisePrediction,
    schedule: NoiseSchedule,
    images: np.ndarray,
    labels: np.ndarray,
    target_labels: np.ndarray,
    ids: np.ndarray,
    recipe: Recipe,
    null_label: int,
    device: torch.device,
    batch_size: int = 64,
    callback: Callback | None = None,
) -> OutlierBatch:
    """Noises images to S and denoises them under the target labels.

    Args:
        model: The noise predictor, on `device`.
        schedule: Its noise schedule.
        images: uint8 (N,H,W,3).
        labels: int64 (N,), y~; carried along.
        target_labels: int64 (N,), the condition; the right label gives the control.
        ids: str (N,), fix each image's noise together with the seed.
        recipe: How to make them, checked by the caller.
        null_label: The model's null token.
        device: Where to compute.
        batch_size: Images at a time; the result does not depend on it beyond rounding.
        callback: (step, x_t, x_0 prediction) for each step of each batch in turn.

    Raises:
        ValueError: A batch size below 1.
        SamplingDiverged: A picture came out as NaN or infinite, which no grey level is.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} is not at least 1")
    started = time.perf_counter()
    tell = None if callback is None else lambda _, *step: callback(*step)
    parts = []
    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        request = OutlierRequest(
            images[rows],
            np.asarray(labels)[rows],
            np.asarray(target_labels)[rows],
            np.asarray(ids, str)[rows],
            recipe,
        )
        parts += generate_together(model, schedule, [request], null_label, device, tell)
    return OutlierBatch(
        np.concatenate([part.outliers for part in parts]),
        np.concatenate([part.noised for part in parts]),
        np.asarray(labels, np.int64),
        np.asarray(target_labels, np.int64),
        np.asarray(ids, str),
        recipe,
        sum(part.network_calls for part in parts),
        parts[-1].evaluations,
        time.perf_counter() - started,
    )


@dataclass(frozen=True, eq=False)
class OutlierRequest:
    """Images to make outliers of by one recipe.

    Attributes:
        images: uint8 (N,H,W,3).
        labels: int64 (N,), y~; carried along.
        target_labels: int64 (N,), the condition.
        ids: str (N,).
        recipe: How to make them.
    """

    images: np.ndarray
    labels: np.ndarray
    target_labels: np.ndarray
    ids: np.ndarray
    recipe: Recipe


def generate_together(
    model: NoisePrediction,
    schedule: NoiseSchedule,
    requests: Sequence[OutlierRequest],
    null_label: int,
    device: torch.device,
    callback: Callable[[int, int, torch.Tensor, torch.Tensor], None] | None = None,
) -> list[OutlierBatch]:
    """Makes the outliers of several recipes in one batch: the network is called once a step for all of them.

    Args:
        model: As `generate_outliers`, and so with schedule, null_label and device.
        schedule: See above.
        requests: Checked by the caller.
        null_label: See above.
        device: See above.
        callback: (request, step, x_t, x_0 prediction) for each step of each request.

    Returns:
        One for each request; `elapsed_sec` is that of all.

    Raises:
        SamplingDiverged: As `generate_outliers`.
    """
    started = time.perf_counter()
    runs: list[tuple[GuidedNoise, Steps]] = []
    noised = []
    for i, one in enumerate(requests):
        recipe, names = one.recipe, np.asarray(one.ids, str).tolist()
        condition = torch.tensor(one.target_labels, device=device)
        guided = GuidedNoise(
            model, condition, null_label, recipe.guidance_scale, schedule, recipe.guidance_interval
        )
        draw = partial(_noise, names, (3, *one.images.shape[1:3]), recipe.seed, device)
        x = to_tensor(one.images, device)
        if recipe.start_timestep:
            x = schedule.add_noise(x, draw("start"), recipe.start_timestep)
        noised.append(x)
        steps = STEPS[recipe.solver](
            x,
            schedule.timesteps(recipe.start_timestep, recipe.num_inference_steps),
            schedule,
            eta=recipe.eta,
            step_noise=partial(_step_noise, draw),
            callback=None if callback is None else partial(callback, i),
        )
        runs.append((guided, steps))
    finished = sample_together(runs)
    elapsed, made = time.perf_counter() - started, []
    for one, (guided, _), x_s, x_0 in zip(requests, runs, noised, finished, strict=True):
        if not torch.isfinite(x_0).all():
            raise SamplingDiverged(
                "the U-Net answered with NaN or infinite numbers: it has to be trained again"
            )
        timesteps = schedule.timesteps(one.recipe.start_timestep, one.recipe.num_inference_steps)
        made.append(
            OutlierBatch(
                to_images(x_0),
                to_images(x_s),
                np.asarray(one.labels, np.int64),
                np.asarray(one.target_labels, np.int64),
                np.asarray(one.ids, str),
                one.recipe,
                len(timesteps),
                sum(guided.evaluations(t) for t in timesteps),
                elapsed,
            )
        )
    return made


def _step_noise(draw: Callable[[str], torch.Tensor], t: int) -> torch.Tensor:
    return draw(f"step {t}")


def _noise(
    names: list[str], shape: tuple[int, ...], seed: int, device: torch.device, purpose: str
) -> torch.Tensor:
    return image_noise(names, shape, seed, purpose).to(device)
