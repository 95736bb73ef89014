"""Estimates the time and disk space of a run by timing one training step of each network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from ... import data
from ...baselines import Baseline
from ...config.nodes import DetectorConfig, EncoderConfig, TrainingConfig
from ...config.tree import CLUSTERINGS, RunConfig
from ...data.roles import ood_split
from ...nn.detector import Detector
from ...nn.device import fast_autocast, resolve_device
from ...nn.encoder import Encoder
from ...nn.feature_cache import has_small_activations
from ...nn.inference import prepare_for_inference
from ...nn.unet import build_noise_predictor, n_parameters
from ..detector import MAX_WATCHED
from ..outliers import kinds_needed, outlier_recipe
from ..stages import stage_names
from .preflight import check_run

PROBE_IMAGES = 32


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will cost."""

    stage: str
    seconds: float  # wall time, by the speed of a few images just now; other work on the machine slows it
    bytes: int  # that stay on the disk


# stage -> seconds, and bytes that stay on the disk
Costs: TypeAlias = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class _Speed:
    """A network, with its seconds for one image in training and in the forward pass alone."""

    network: nn.Module
    train_sec: float
    forward_sec: float

    @property
    def bytes(self) -> int:
        return 4 * n_parameters(self.network)


def estimate(config: RunConfig) -> list[StageEstimate]:
    """Estimates each stage of a run; decodes no image. Raises as `check_run`."""
    d = config.data
    n, size = data.count(d.id, d.split, d.limit), d.size_px
    check_run(config, stage_names(config), n)
    x = torch.randn(PROBE_IMAGES, 3, size, size, device=resolve_device(config.device))
    # 1. U-Net and encoder
    unet = _unet_speed(config, x)
    images_seen = config.diffusion.total_steps * config.diffusion.batch_size
    limit = config.diffusion.time_limit_sec or float("inf")
    costs: Costs = {"diffusion": (min(limit, images_seen * unet.train_sec), unet.bytes)}
    if config.encoder is not None:
        encoder = _encoder_speed(config.encoder, x)
        costs["encoder"] = _training_sec(config.encoder, encoder.train_sec), encoder.bytes
        if config.labels.source == "scan":
            own = config.labels.self_label
            sec = 2 * _seen(config.labels.scan) * encoder.train_sec + 2 * n * encoder.forward_sec
            sec += _seen(own) * (encoder.train_sec + encoder.forward_sec) if own is not None else 0.0
            costs["pseudo_labels"] = sec, encoder.bytes
        elif config.labels.source in CLUSTERINGS:
            # clusters of features: the network runs once over the images, the rest is small beside it
            costs["pseudo_labels"] = n * encoder.forward_sec * (1 + len(config.labels.spaces)), 1 << 20
            costs["clusterer"] = 1.0, encoder.bytes
        # 2. the detector and the stages after it
        if config.detector is not None:
            backbone = encoder
            if config.detector.backbone is not None:
                backbone = _encoder_speed(config.detector.backbone, x)
                sec = _training_sec(config.detector.backbone, backbone.train_sec)
                costs["backbone"] = sec, backbone.bytes
            trained = _trained_part(backbone, config.detector.frozen_blocks, x)
            costs |= _detector_costs(config, config.detector, backbone, trained, unet, n)
    # 3. images from noise with an outlier of each; then the bundle, with the U-Net in float16
    generated, recipe = config.bundle.generated, outlier_recipe(config)
    n_calls = generated.num_inference_steps + min(recipe.num_inference_steps, recipe.start_timestep)
    made_bytes = 2 * generated.n_images * size**2 * 3
    costs["generated"] = generated.n_images * 2 * n_calls * unet.forward_sec, made_bytes
    kept = ("encoder", "pseudo_labels", "detector", "features")
    costs["bundle"] = 1.0, sum(costs[key][1] for key in kept if key in costs) + unet.bytes / 2
    found = [(name, *costs.get(name, (1.0, 1 << 16))) for name in stage_names(config)]
    return [StageEstimate(name, round(sec, 1), int(size)) for name, sec, size in found]


def _detector_costs(
    config: RunConfig, detector: DetectorConfig, speed: _Speed, trained: _Speed, unet: _Speed, n: int
) -> Costs:
    """The costs of the stages that only a run with a detector has, without `backbone`.

    `speed` is that of the whole starting network, `trained` that of `_trained_part`.
    """
    assert isinstance(speed.network, Encoder)
    # 1. how many images
    n_sources, n_test = min(n, config.outliers.limit or n), _n_test(config, n)
    limit, sd_test = config.evaluation.limit, config.evaluation.sd_test
    n_sd_test = min(n_test, sd_test.limit or n_test) if sd_test is not None else 0
    n_ood = sum(data.count(*ood_split(name), limit) for name in config.evaluation.ood_sets)
    n_asked = n_ood + min(n_test, limit or n_test) + n_sd_test
    n_scored = 2 * n_sources + n_asked
    # 2. outliers
    recipe = outlier_recipe(config)
    pixels = config.data.size_px**2 * 3
    sec_each = 2 * min(recipe.num_inference_steps, recipe.start_timestep) * unet.forward_sec
    made = n_sources * config.outliers.per_image * len(kinds_needed(config))
    # 3. the detector, its features, and the controls
    pass_sec, in_steps = 2 * n_sources * speed.forward_sec, trained if detector.views is None else speed
    epoch_sec = 2 * n_sources * in_steps.train_sec + min(n_sources, MAX_WATCHED) * trained.forward_sec
    epoch_sec += 2 * n_sources * in_steps.forward_sec if detector.distillation else 0
    training_sec = detector.epochs * epoch_sec + (pass_sec if detector.head_epochs else 0)
    training_sec += pass_sec if in_steps is not speed else 0
    n_trained = sum(control != "no_training" for control in config.evaluation.controls)
    n_between = len({*config.evaluation.interpolation} - {0.0, detector.interpolation})
    n_of_trained = (1 + n_trained + n_between) * n_scored + (detector.epochs + 1) * detector.snapshot_ids
    n_features = n_scored + n_of_trained
    n_of_all = n_scored * (1 if trained is speed else 2)
    features_sec = n_of_all * speed.forward_sec + n_of_trained * trained.forward_sec
    n_weights = n_parameters(Detector(speed.network, _n_clusters(config)))
    # 4. the other methods
    methods = [one.build() for one in config.evaluation.baselines]
    baselines_sec = sum(_trained_images(one, n_sources) for one in methods) * speed.train_sec
    for method in methods:
        if "outliers" in method.needs:
            learned = method.settings.generator_steps * config.diffusion.batch_size
            baselines_sec += (
                learned * unet.train_sec + n_sources * recipe.num_inference_steps * unet.forward_sec
            )
    # 5. trials, and a training with the best; then the scores of each row of the tables
    tuning, tuning_sec, n_rows = config.evaluation.tuning, 0.0, len(methods)
    n_trained_methods = sum(one.training_passes > 0 for one in methods)
    scoring_passes = sum(one.scoring_passes for one in methods)
    if tuning is not None:
        n_fits = tuning.trials * (tuning.left_out_pairs if tuning.criterion == "left_out" else 1) + 1
        n_methods = sum(_trained_images(one, n_sources) for one in methods)
        tuning_sec = n_fits * (detector.epochs * epoch_sec + n_methods * speed.train_sec)
        n_rows += 1 + sum(bool(one.search) for one in methods)
        scoring_passes += 1 + sum(one.scoring_passes for one in methods if one.search)
    scoring_sec = scoring_passes * (n_sources + n_asked) * speed.forward_sec
    return {
        "outliers": (made * sec_each, made * pixels),
        "sd_test": (n_sd_test * sec_each, n_sd_test * pixels),
        "detector": (
            training_sec,
            4 * n_weights * (1 + (detector.epochs if detector.snapshot_ids else 0)),
        ),
        "controls": (n_trained * training_sec, 4 * n_trained * n_weights),
        "features": (features_sec, 2 * n_features * speed.network.feature_dim),
        "baselines": (baselines_sec, 4 * n_weights * n_trained_methods),
        "tuning": (tuning_sec, 4 * n_weights * (1 + n_trained_methods)),
        "baseline_scores": (scoring_sec, 8 * n_asked * n_rows),
    }


def _unet_speed(config: RunConfig, x: torch.Tensor) -> _Speed:
    """The speed of the U-Net; its forward pass is timed in its fastest form, and only if it makes pictures."""
    unet = build_noise_predictor(config.diffusion.unet, _n_clusters(config), config.data.size_px).to(x.device)
    t = torch.zeros(PROBE_IMAGES, dtype=torch.int64, device=x.device)
    train_sec = _per_image(lambda: _train_step(lambda y: unet(y, t, t), x), x.device)
    if config.detector is None and not config.bundle.generated.n_images:
        return _Speed(unet, train_sec, 0.0)
    model = prepare_for_inference(unet, x.device)
    return _Speed(unet, train_sec, _per_image(lambda: model(x, t, t), x.device))


def _encoder_speed(config: EncoderConfig, x: torch.Tensor) -> _Speed:
    encoder = Encoder(config.arch, config.width, config.input_px).to(x.device)
    train_sec = _per_image(lambda: _train_step(encoder, x), x.device)
    with torch.no_grad():
        return _Speed(encoder, train_sec, _per_image(lambda: encoder(x), x.device))


def _trained_part(speed: _Speed, frozen_blocks: int, x: torch.Tensor) -> _Speed:
    """The speed of the blocks that are trained, if what frozen ones make of an image is kept; else `speed`."""
    encoder = speed.network
    assert isinstance(encoder, Encoder)
    encoder.freeze(frozen_blocks)
    one = np.zeros((1, *x.shape[2:], 3), np.uint8)
    if not has_small_activations(encoder, one) or frozen_blocks == len(encoder.blocks):
        return speed
    with torch.no_grad():
        activations = encoder.to(x.device).activations(x)
    train_sec = _per_image(lambda: _train_step(encoder.features_of, activations), x.device)
    with torch.no_grad():
        return _Speed(encoder, train_sec, _per_image(lambda: encoder.features_of(activations), x.device))


def _n_clusters(config: RunConfig) -> int:
    return config.labels.n_clusters or 10


def _training_sec(config: EncoderConfig, train_sec: float) -> float:
    return sum(_seen(one) * (2 if one is config.simclr else 1) for one in config.trainings) * train_sec


def _trained_images(method: Baseline, n_fit: int) -> float:
    """How many images a method is trained on, counted as often as it sees them."""
    return float(method.training_passes * method.settings.epochs * n_fit) if method.training_passes else 0.0


def _train_step(network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    with fast_autocast(x.device):
        out = network(x)
    out.float().square().mean().backward()


def _per_image(work: Callable[[], object], device: torch.device) -> float:
    """Seconds for one image: the faster of two tries after a warm-up."""
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


def _n_test(config: RunConfig, n_images: int) -> int:
    d = config.data
    split = d.test_split or ("test" if "test" in data.splits(d.id) else None)
    return data.count(d.id, split, None) if split else round(d.holdout * n_images)
