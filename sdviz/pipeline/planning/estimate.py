"""Estimates the time and disk space of a run from one training step of each network on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ... import data
from ...baselines import Baseline
from ...config.nodes import EncoderConfig, TrainingConfig
from ...config.tree import RunConfig
from ...nn.detector import Detector
from ...nn.device import has_fast_bf16, resolve_device
from ...nn.encoder import Encoder
from ...nn.inference import prepare_for_inference
from ...nn.unet import build_noise_predictor, n_parameters
from ..outliers import kinds_needed, outlier_recipe
from ..sets import ood_split
from .order import stage_names
from .preflight import check_run

PROBE_IMAGES = 32


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will cost.

    Attributes:
        seconds: Wall time, by the speed of a few images just now; other work on the machine slows it.
        bytes: What it leaves on the disk.
    """

    stage: str
    seconds: float
    bytes: int


def estimate(config: RunConfig) -> list[StageEstimate]:
    """Times a few images through each network, and counts.

    Args:
        config: Of a run that has not begun; its images are counted, not decoded.

    Raises:
        DataError, EncoderError, ValueError: What the run itself would stop at.
    """
    device = resolve_device(config.device)
    size, n = config.data.size_px, _n_images(config)
    methods = [one.build() for one in config.evaluation.baselines]
    check_run(config, stage_names(config), n)
    clusters = config.labels.n_clusters or 10
    pixels = size * size * 3
    x = torch.randn(PROBE_IMAGES, 3, size, size, device=device)
    sec: dict[str, float] = {}
    held: dict[str, float] = {}

    # 1. the encoder, forward alone and in training
    encoder_params = 0
    n_sources = min(n, config.outliers.limit or n)
    if config.encoder is not None:
        e = config.encoder
        encoder, train_sec, forward_sec = _timed(e, x, device)
        encoder_params = n_parameters(encoder)
        sec["encoder"], held["encoder"] = _training_sec(e, train_sec), 4 * encoder_params
        if config.labels.source == "scan":
            own = config.labels.self_label
            sec["pseudo_labels"] = 2 * _seen(config.labels.scan) * train_sec + 2 * n * forward_sec
            sec["pseudo_labels"] += _seen(own) * (train_sec + forward_sec) if own is not None else 0.0
            held["pseudo_labels"] = 4 * encoder_params
        # 2. the detector and what is asked of it
        if config.detector is not None:
            d = config.detector
            if d.backbone is not None:
                encoder, train_sec, forward_sec = _timed(d.backbone, x, device)
                sec["backbone"], held["backbone"] = (
                    _training_sec(d.backbone, train_sec),
                    4 * n_parameters(encoder),
                )
            epoch = 2 * n_sources * train_sec
            n_trained = sum(control != "no_training" for control in config.evaluation.controls)
            n_asked = (
                sum(_n_of(name, config) for name in config.evaluation.ood_sets)
                + _n_test(config)
                + _n_sd_test(config)
            )
            n_scored = 2 * n_sources + n_asked
            head = Detector(encoder, clusters)
            sec["detector"] = d.epochs * (epoch + d.snapshot_ids * forward_sec)
            sec["features"] = 2 * n_scored * forward_sec
            sec["controls"] = n_trained * (d.epochs * epoch + n_scored * forward_sec)
            held["detector"] = 4 * n_parameters(head)
            held["features"] = 4 * n_scored * encoder.feature_dim
            held["controls"] = n_trained * 2 * n_scored * encoder.feature_dim
            sec["baselines"] = sum(_baseline_images(one, n_sources, n_asked) for one in methods) * train_sec
            held["baselines"] = 8 * n_asked * len(methods)
    # 3. the U-Net, in training and making outliers
    unet = build_noise_predictor(config.diffusion.unet, clusters, size).to(device)
    t = torch.zeros(PROBE_IMAGES, dtype=torch.int64, device=device)
    one_step = _per_image(lambda: _train_step(lambda y: unet(y, t, t), x, device), device)
    limit = config.diffusion.time_limit_sec or float("inf")
    sec["diffusion"] = min(limit, config.diffusion.total_steps * config.diffusion.batch_size * one_step)
    held["diffusion"] = 4 * n_parameters(unet)
    if config.detector is not None:
        recipe = outlier_recipe(config)
        model = prepare_for_inference(unet, device)
        call = _per_image(lambda: model(x, t, t), device)
        calls = 2 * min(recipe.num_inference_steps, recipe.start_timestep)
        made = n_sources * config.outliers.per_image * len(kinds_needed(config))
        sec["outliers"], held["outliers"] = made * calls * call, made * pixels
        sec["sd_test"], held["sd_test"] = _n_sd_test(config) * calls * call, _n_sd_test(config) * pixels
        for method in methods:
            if "outliers" in method.needs:
                learned = method.settings.generator_steps * config.diffusion.batch_size
                sec["baselines"] += learned * one_step + n_sources * recipe.num_inference_steps * call
    held["bundle"] = sum(held.get(key, 0) for key in ("encoder", "pseudo_labels", "detector", "features"))
    held["bundle"] += held["diffusion"] / 2
    return [
        StageEstimate(name, round(sec.get(name, 1.0), 1), int(held.get(name, 1 << 16)))
        for name in stage_names(config)
    ]


def _timed(config: EncoderConfig, x: torch.Tensor, device: torch.device) -> tuple[Encoder, float, float]:
    """The network, and seconds for an image in training and forward alone."""
    encoder = Encoder(config.arch, config.width, config.input_px).to(device)
    train_sec = _per_image(lambda: _train_step(encoder, x, device), device)
    return encoder, train_sec, _per_image(lambda: _forward(encoder, x), device)


def _training_sec(config: EncoderConfig, train_sec: float) -> float:
    loops = [part for part in (config.pretraining, config.simclr) if part is not None]
    return sum(_seen(part) * (2 if part is config.simclr else 1) for part in loops) * train_sec


def _baseline_images(method: Baseline, n_fit: int, n_asked: int) -> float:
    """How many images' training a method costs; scoring one costs a third of that."""
    trained = method.training_passes * method.settings.epochs * n_fit if method.training_passes else 0.0
    return float(trained + method.scoring_passes * (n_fit + n_asked) / 3)


def _train_step(network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, device: torch.device) -> None:
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bf16(device)):
        out = network(x)
    out.float().square().mean().backward()


@torch.no_grad()
def _forward(network: torch.nn.Module, x: torch.Tensor) -> None:
    network(x)


def _per_image(work: Callable[[], object], device: torch.device) -> float:
    """Seconds for an image: the faster of two tries, after one that warms up."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:]) / PROBE_IMAGES


def _seen(config: TrainingConfig) -> int:
    return config.total_steps * config.batch_size


def _n_images(config: RunConfig) -> int:
    return data.count(config.data.id, config.data.split, config.data.limit)


def _n_test(config: RunConfig) -> int:
    d = config.data
    split = d.test_split or ("test" if "test" in data.splits(d.id) else None)
    n = data.count(d.id, split, None) if split else round(d.holdout * _n_images(config))
    return min(n, config.evaluation.limit or n)


def _n_sd_test(config: RunConfig) -> int:
    t, whole = config.evaluation.sd_test, config.evaluation.model_copy(update={"limit": None})
    if t is None:
        return 0
    n = _n_test(config.model_copy(update={"evaluation": whole}))
    return min(n, t.limit or n)


def _n_of(name: str, config: RunConfig) -> int:
    return data.count(*ood_split(name), config.evaluation.limit)
