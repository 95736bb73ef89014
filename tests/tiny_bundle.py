"""The smallest bundle that the app takes: a U-Net of 8 channels and a judge of 4, both with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sdviz.bundle import Bundle, Defaults, make_manifest
from sdviz.config.nodes import UNetConfig
from sdviz.data.sources import shapes
from sdviz.diffusion.schedule import NoiseSchedule
from sdviz.nn.classifier import SmallClassifier
from sdviz.nn.unet import build_noise_predictor

N_CLASSES, IMAGE_SIZE = len(shapes.ID_OBJECTS), 32


def save_tiny_bundle(path: Path, clusterer: bool = True, max_s: int = 200, dataset: str = "shapes") -> Path:
    """A bundle for S up to `max_s`, the same weights each time; returns its folder, `path`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_noise_predictor(
            UNetConfig(channels=(8, 8), pixel_unshuffle=4), N_CLASSES, IMAGE_SIZE
        ).eval()
        judge = SmallClassifier(N_CLASSES, width=4).eval() if clusterer else None
    manifest = make_manifest(
        dataset=dataset,
        n_clusters=N_CLASSES,
        class_names=tuple(shapes.ID_OBJECTS),
        labels_from="ground truth",
        image_size=IMAGE_SIZE,
        pixel_unshuffle=4,
        max_train_timestep=max_s,
        defaults=Defaults(start_timestep=100, guidance_scale=2.0, num_inference_steps=2, solver="ddim"),
    )
    Bundle(manifest, network, NoiseSchedule.linear(), judge).save(path)
    return path


def with_parts(bundle: Bundle, parts: Mapping[str, Path]) -> Bundle:
    """A bundle in memory with the same networks, and these tables and features only."""
    networks = (bundle.noise_predictor, bundle.schedule, bundle.clusterer, bundle.encoder, bundle.detector)
    return Bundle(bundle.manifest, *networks, parts)
