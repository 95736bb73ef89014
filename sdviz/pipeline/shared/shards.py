"""Makes pictures in shards: fixed ranges of rows, each one file."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays

from ...config.tree import JpegConfig
from ...data import ImageSet
from ...data.decode import through_jpeg
from ...nn.device import resolve_device
from ...nn.inference import prepare_for_inference
from ...outliers import DiffusionModel, Recipe, draw_target_labels, generate_outliers
from ..diffusion import load_noise_predictor
from ..workspace import PipelineError, Progress, Workspace, from_main, is_main_process, write_arrays
from .labels import read_cluster_names


@dataclass(frozen=True, eq=False)
class Plan:
    """Pictures to make: row r from image r % N with seed + r // N."""

    folder: Path  # for the shards, in the folder of the stage
    under_right_label: bool  # whether to denoise under y~ instead of a wrong label
    images: ImageSet
    labels: np.ndarray  # y~ of each image, int64 (N,)
    recipe: Recipe
    n_rows: int


def make_shards(work: Workspace, plans: list[Plan]) -> float | None:
    """Makes every missing shard; returns images a second, 0 if none was missing, None if stopped."""
    size = work.config.outliers.shard_size
    where = resolve_device(work.config.device)
    n_clusters = len(read_cluster_names(work))
    network = prepare_for_inference(load_noise_predictor(work), where)
    model = DiffusionModel(network, work.schedule, n_clusters, where)
    started = time.monotonic()

    # 1. the missing shards, dealt to the processes in rounds
    shards = [(plan, first) for plan in plans for first in range(0, plan.n_rows, size)]
    total = sum(plan.n_rows for plan in plans)
    missing = []
    if is_main_process():
        missing = [i for i, (plan, first) in enumerate(shards) if not is_whole(shard_path(plan.folder, first))]
    missing = json.loads(from_main(json.dumps(missing), work.config.device))
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    made = 0
    for done in range(0, len(missing), world):
        if from_main(work.should_stop(), work.config.device):
            return None
        if done + rank >= len(missing):
            continue
        plan, first = shards[missing[done + rank]]
        # 2. one shard
        rows = np.arange(first, min(first + size, plan.n_rows))
        pictures = np.empty((len(rows), *plan.images.images.shape[1:]), np.uint8)
        targets = np.empty(len(rows), np.int64)
        for turn in np.unique(rows // len(plan.images)):
            here = rows // len(plan.images) == turn
            source = rows[here] % len(plan.images)
            recipe = replace(plan.recipe, seed=plan.recipe.seed + int(turn))
            y, ids = plan.labels[source], plan.images.ids[source]
            wanted = y if plan.under_right_label else draw_target_labels(y, ids, n_clusters, recipe.seed)
            images = plan.images.images[source]
            batch = generate_outliers(model, images, y, wanted, ids, recipe, work.config.outliers.batch_size)
            pictures[here], targets[here] = batch.outliers, wanted
        pictures = reencode(pictures, work.config.outliers.jpeg)
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(shard_path(plan.folder, first), {"images": pictures, "target_labels": targets})
        made += len(rows)
        if is_main_process():
            spent = time.monotonic() - started
            left = max(0, len(missing) - done - world)
            share = 1 - left / len(shards)
            eta = spent / (done / world + 1) * math.ceil(left / world)
            values = {"images_per_sec": world * made / spent}
            work.on_progress(Progress(plan.folder.parent.name, round(share * total), total, share, eta, values))
    if world > 1:
        PartialState(cpu=where.type == "cpu").wait_for_everyone()
    return round(made / max(1e-9, time.monotonic() - started), 2)


def read_shards(folder: Path, n_rows: int, shard_size: int) -> np.ndarray:
    """The pictures of all shards in a plan's folder, uint8 (M,H,W,3)."""
    parts = []
    for first in range(0, n_rows, shard_size):
        path = shard_path(folder, first)
        if not path.is_file():
            raise PipelineError(f"{path} is missing: remove {folder.parent}.done.json and resume")
        parts.append(load_arrays(path)["images"])
    return np.concatenate(parts)


def reencode(images: np.ndarray, jpeg: JpegConfig | None) -> np.ndarray:
    """Encodes pictures, uint8 (N,H,W,3), as JPEG and decodes them again; None leaves them unchanged."""
    return images if jpeg is None else through_jpeg(images, jpeg.quality, jpeg.subsampling)


def shard_path(folder: Path, first: int) -> Path:
    """The file of the shard that begins with row `first`."""
    return folder / f"{first:07d}.safetensors"


def is_whole(path: Path) -> bool:
    """Whether a shard was written to its end."""
    try:
        load_arrays(path)
    except (SafetensorError, OSError):
        return False
    return True
