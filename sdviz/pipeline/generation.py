"""The stages that make outliers: diffusion, outliers."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch.nn import functional as F

from .. import data
from ..config import JpegConfig, RunConfig
from ..data import ImageSet
from ..data.decode import through_jpeg
from ..diffusion.schedule import NoiseSchedule
from ..diffusion.training import TrainingReport, train_noise_predictor
from ..nn.batches import predict
from ..nn.device import resolve_device
from ..nn.inference import prepare_for_inference
from ..nn.phase_means import PhaseMeans, PhaseStatistics, measure_phases
from ..nn.pixels import to_images, to_tensor
from ..nn.randomness import image_noise
from ..nn.unet import NoisePredictor, build_noise_predictor
from ..outliers import Recipe, draw_target_labels, generate_outliers
from .clusters import load_clusterer
from .workspace import (
    Metrics,
    PipelineError,
    Progress,
    Workspace,
    from_main,
    is_main_process,
    read_cluster_names,
    read_labels,
    source_labels,
)

log = logging.getLogger(__name__)

Kind = Literal["wrong", "right", "test"]

# what reports call the OOD set of SD outliers of held-out images
SD_TEST = "sd-outliers"
# the controls that need images as the U-Net makes them under their right label
CONTROLS_OF_REBUILT = frozenset({"right_label", "right_label_as_id"})

# --- diffusion ----------------------------------------------------------------------------------------


def make_noise_predictor(work: Workspace) -> Metrics | None:
    """Stage `diffusion`: the U-Net, trained by Eq. 1; resumes from diffusion/state.pt where that is."""
    images, labels = work.images, read_labels(work)
    config = work.config.diffusion
    out = work.stage_folder("diffusion")

    def report(r: TrainingReport) -> None:
        eta = r.elapsed_sec * (1 - r.progress) / r.progress if r.progress else 0.0
        values = {"loss": r.loss, "learning_rate": r.learning_rate, "images_per_sec": r.images_per_sec}
        values["elapsed_sec"] = r.elapsed_sec
        work.on_progress(Progress("diffusion", r.step, r.total_steps, r.progress, eta, values))

    torch.manual_seed(config.seed)
    n_clusters = len(read_cluster_names(work))
    network = build_noise_predictor(config.unet, n_clusters, work.config.data.size_px)
    averaged, complete = train_noise_predictor(
        network,
        images.images,
        labels,
        work.schedule,
        config,
        out / "state.pt",
        work.config.device,
        report,
        work.should_stop,
    )
    if not complete:
        return None
    if not is_main_process():
        return {}
    averaged.unet.save_pretrained(out / "unet")
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    return {
        "diffusion_loss": _eq1_loss(
            averaged, images, labels, work.schedule, work.config.max_train_timestep, work.config.device
        ),
        "diffusion_steps": state["step"],
        "diffusion_images_seen": state["step"] * config.batch_size,
        "diffusion_training_sec": round(state["elapsed_sec"], 1),
    }


def load_noise_predictor(work: Workspace) -> NoisePredictor:
    """The network that stage `diffusion` made, on the CPU, rounded to float16 as a bundle keeps it."""
    n_clusters = len(read_cluster_names(work))
    predictor = build_noise_predictor(work.config.diffusion.unet, n_clusters, work.config.data.size_px)
    weights = load_file(work.folder / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")
    predictor.unet.load_state_dict({key: value.half().float() for key, value in weights.items()})
    add_phase_means(work, predictor)
    return predictor.eval().requires_grad_(False)


def phase_statistics(work: Workspace, pixel_unshuffle: int) -> PhaseStatistics | None:
    """The channel means of the training images; None where nothing is unshuffled, or the U-Net has its way."""
    if pixel_unshuffle == 1 or not work.config.diffusion.phase_means or len(work.images) < 2:
        return None
    return measure_phases(work.images.images, pixel_unshuffle)


def add_phase_means(work: Workspace, predictor: NoisePredictor) -> None:
    """Gives a trained network its `phases`, in place."""
    factor = predictor.pixel_unshuffle
    statistics = phase_statistics(work, factor)
    if statistics is not None:
        n_pixels = (work.config.data.size_px // factor) ** 2
        predictor.phases = PhaseMeans(statistics, work.schedule.alphas_cumprod, n_pixels)


@torch.no_grad()
def _eq1_loss(
    network: NoisePredictor,
    images: ImageSet,
    labels: np.ndarray,
    schedule: NoiseSchedule,
    max_t: int,
    device: str,
) -> float:
    """Eq. 1 of up to 512 fixed training images, t spread evenly over what was trained: no luck of a batch."""
    where = resolve_device(device)
    network = network.to(where)
    rows = data.permutation(len(images), 0)[:512]
    x_0 = to_tensor(images.images[rows])
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.arange(len(rows)) * max_t // len(rows)
    x_t = schedule.add_noise(x_0, noise, t + 1)
    y = torch.tensor(labels[rows])
    total = 0.0
    for part in torch.arange(len(rows)).split(64):
        eps = network(*(one[part].to(where) for one in (x_t, t, y)))
        total += float(F.mse_loss(eps, noise[part].to(where), reduction="sum"))
    network.to("cpu")
    return total / noise.numel()


# --- outliers -----------------------------------------------------------------------------------------


def outlier_recipe(config: RunConfig) -> Recipe:
    """How the outliers of a run are made: `outliers`, and `defaults` where that says nothing."""
    o, d = config.outliers, config.defaults
    recipe = Recipe(
        d.start_timestep if o.start_timestep is None else o.start_timestep,
        d.guidance_scale if o.guidance_scale is None else o.guidance_scale,
        d.num_inference_steps if o.num_inference_steps is None else o.num_inference_steps,
        o.solver or d.solver,
        o.eta,
        o.guidance_interval,
        o.seed,
    )
    recipe.check(config.max_train_timestep)
    return recipe


def sd_test_recipe(config: RunConfig) -> Recipe:
    """How the SD outliers of held-out images are made: `evaluation.sd_test`, and `outliers` for the rest."""
    t = config.evaluation.sd_test
    if t is None:
        raise PipelineError("evaluation.sd_test is not set: no SD outliers of held-out images are wanted")
    recipe = replace(
        outlier_recipe(config), start_timestep=t.start_timestep, guidance_scale=t.guidance_scale, seed=t.seed
    )
    recipe.check(config.max_train_timestep)
    return recipe


def sd_test_sources(work: Workspace) -> ImageSet:
    """The held-out ID images that they are made of."""
    t, test = work.config.evaluation.sd_test, work.test
    if test is None or t is None:
        raise PipelineError(f"{work.images.name}: no held-out images to make SD outliers of")
    if t.limit is None or t.limit >= len(test):
        return test
    return test.take(data.permutation(len(test), work.config.evaluation.seed)[: t.limit])


def kinds_needed(config: RunConfig) -> tuple[Kind, ...]:
    """Wrong-label outliers; and images under their right label, where training or a control wants them."""
    rebuilt = config.detector is not None and config.detector.reconstructed_id > 0
    for_controls = CONTROLS_OF_REBUILT & set(config.evaluation.controls)
    return ("wrong", "right") if rebuilt or for_controls else ("wrong",)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Pictures that a stage makes: row r is of image r % N, by seed + r // N.

    Attributes:
        kind: Which pictures, and the folder of their shards.
        images: What they are made of.
        labels: y~ of each, int64 (N,).
        recipe: How.
        n_rows: How many.
    """

    kind: Kind
    images: ImageSet
    labels: np.ndarray
    recipe: Recipe
    n_rows: int


def make_outliers(work: Workspace) -> Metrics | None:
    """Stage `outliers`: `per_image` SD outliers of every image in `work.sources`, shard by shard.

    A shard is a fixed range of rows, saved whole: what was made is kept, and no other process's share
    changes a pixel. Row r is the outlier of image r % N by seed + r // N.
    """
    warn_of_jpeg(work)
    n_rows = len(work.sources) * work.config.outliers.per_image
    labels, recipe = source_labels(work), outlier_recipe(work.config)
    kinds = kinds_needed(work.config)
    rate = _make_shards(work, "outliers", [_Plan(kind, work.sources, labels, recipe, n_rows) for kind in kinds])
    if rate is None:
        return None
    if not is_main_process():
        return {}
    write_outlier_table(work)
    return {"outliers": n_rows, "outliers_images_per_sec": rate or None}


def warn_of_jpeg(work: Workspace) -> None:
    """Says in the log where compression alone tells outliers from ID images."""
    share, jpeg = work.images.jpeg_share, work.config.outliers.jpeg
    if share is None or not is_main_process():
        return
    if share > 0.5 and jpeg is None:
        log.warning(
            "%s went through JPEG and outliers.jpeg is not set: the detector can learn 'no JPEG' in the place"
            " of semantics",
            work.images.name,
        )
    if share <= 0.5 and jpeg is not None:
        log.warning(
            "%s did not go through JPEG and outliers.jpeg is set: the detector can learn 'JPEG' in the place of"
            " semantics; set outliers.jpeg=null",
            work.images.name,
        )


def make_sd_test(work: Workspace) -> Metrics | None:
    """Stage `sd_test`: SD outliers of held-out ID images, an OOD set of its own (Table 4), in shards as well.

    Their y~ is what the clusterer says of them.
    """
    images, recipe = sd_test_sources(work), sd_test_recipe(work.config)
    labels, _ = predict(load_clusterer(work), images.images, work.config.device)
    rate = _make_shards(work, "sd_test", [_Plan("test", images, labels, recipe, len(images))])
    if rate is None:
        return None
    return {"sd_test_outliers": len(images)} if is_main_process() else {}


def _make_shards(work: Workspace, stage: str, plans: list[_Plan]) -> float | None:
    """Makes every shard that is not there yet.

    Returns:
        Images a second, 0 where all were there; None if it was stopped.
    """
    config, n_clusters = work.config.outliers, len(read_cluster_names(work))
    where = resolve_device(work.config.device)
    model = prepare_for_inference(load_noise_predictor(work), where)
    started = time.monotonic()

    # 1. the shards that are not there yet, dealt out to the processes in rounds
    shards = [(plan, first) for plan in plans for first in range(0, plan.n_rows, config.shard_size)]
    total = sum(plan.n_rows for plan in plans)
    missing = (
        [i for i, (plan, first) in enumerate(shards) if not _shard_is_whole(work, plan.kind, first)]
        if is_main_process()
        else []
    )
    missing = json.loads(from_main(json.dumps(missing), work.config.device))
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    made = 0
    for dealt in range(0, len(missing), world):
        if from_main(work.should_stop(), work.config.device):
            return None
        if dealt + rank >= len(missing):
            continue
        plan, first = shards[missing[dealt + rank]]
        images = plan.images
        # 2. its rows, by seed
        rows = np.arange(first, min(first + config.shard_size, plan.n_rows))
        pictures = np.empty((len(rows), *images.images.shape[1:]), np.uint8)
        targets = np.empty(len(rows), np.int64)
        for turn in np.unique(rows // len(images)):
            here = rows // len(images) == turn
            source = rows[here] % len(images)
            one = replace(plan.recipe, seed=plan.recipe.seed + int(turn))
            y, ids = plan.labels[source], images.ids[source]
            right = plan.kind == "right"
            targets[here] = y if right else draw_target_labels(y, ids, n_clusters, one.seed)
            batch = generate_outliers(
                model,
                work.schedule,
                images.images[source],
                y,
                targets[here],
                ids,
                one,
                n_clusters,
                where,
                config.batch_size,
            )
            pictures[here] = batch.outliers
        if config.jpeg is not None:
            pictures = reencode(pictures, config.jpeg)
        # 3. saved whole
        path = shard_path(work, plan.kind, first)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_arrays({"images": pictures, "target_labels": targets}, partial)
        os.replace(partial, path)
        made += len(rows)
        if is_main_process():
            spent = time.monotonic() - started
            left = max(0, len(missing) - dealt - world)
            share = 1 - left / len(shards)
            eta = spent / (dealt / world + 1) * math.ceil(left / world)
            values = {"images_per_sec": world * made / spent}
            work.on_progress(Progress(stage, round(share * total), total, share, eta, values))
    if world > 1:
        PartialState(cpu=where.type == "cpu").wait_for_everyone()
    return round(made / max(1e-9, time.monotonic() - started), 2)


def shard_path(work: Workspace, kind: Kind, first: int) -> Path:
    """Where the shard that begins with row `first` is."""
    stage = "sd_test" if kind == "test" else "outliers"
    return work.folder / stage / kind / f"{first:07d}.safetensors"


def _shard_is_whole(work: Workspace, kind: Kind, first: int) -> bool:
    path = shard_path(work, kind, first)
    if not path.is_file():
        return False
    try:
        load_arrays(path)
    except (SafetensorError, OSError):
        return False
    return True


def read_outliers(work: Workspace, kind: Kind) -> np.ndarray:
    """The pictures that stage `outliers` made, uint8 (M,H,W,3), row by row with outliers.parquet.

    Raises:
        PipelineError: A shard is missing.
    """
    n_rows = len(work.sources) * work.config.outliers.per_image
    return _read_shards(work, kind, n_rows)


def read_sd_test(work: Workspace) -> ImageSet:
    """The pictures that stage `sd_test` made; their labels are their sources' classes.

    Raises:
        PipelineError: A shard is missing.
    """
    of = sd_test_sources(work)
    seed = sd_test_recipe(work.config).seed
    ids = np.array([f"{one}~{seed}" for one in of.ids.tolist()])
    pictures = _read_shards(work, "test", len(of))
    return ImageSet(SD_TEST, of.split, pictures, of.labels, ids, of.class_names)


def _read_shards(work: Workspace, kind: Kind, n_rows: int) -> np.ndarray:
    parts = []
    for first in range(0, n_rows, work.config.outliers.shard_size):
        path = shard_path(work, kind, first)
        if not path.is_file():
            marker = work.folder / f"{path.parent.parent.name}.done.json"
            raise PipelineError(f"{path} is missing: remove {marker} and resume")
        parts.append(load_arrays(path)["images"])
    return np.concatenate(parts)


def outlier_labels(work: Workspace) -> np.ndarray:
    """The y~ of each outlier, int64 (M,)."""
    return np.tile(source_labels(work), work.config.outliers.per_image)


def outlier_ids(work: Workspace) -> np.ndarray:
    """The id of each outlier, str (M,): its source's id, ~ and its seed."""
    turns = range(work.config.outliers.per_image)
    seed = outlier_recipe(work.config).seed
    return np.concatenate([np.char.add(work.sources.ids.astype(str), f"~{seed + turn}") for turn in turns])


def noised_images(work: Workspace) -> np.ndarray:
    """x_S of every image in `work.sources`, uint8 (N,H,W,3): noise of the outliers' sigma and nothing else."""
    recipe = outlier_recipe(work.config)
    images = work.sources
    made = np.empty_like(images.images)
    for first in range(0, len(images), 512):
        rows = slice(first, first + 512)
        x_0 = to_tensor(images.images[rows])
        noise = image_noise(images.ids[rows].tolist(), tuple(x_0.shape[1:]), recipe.seed, "start")
        made[rows] = to_images(work.schedule.add_noise(x_0, noise, recipe.start_timestep))
    return made


def reencode(images: np.ndarray, config: JpegConfig) -> np.ndarray:
    """The pictures after one round of JPEG, uint8 (N,H,W,3).

    Pillow's encoder is libjpeg-turbo: near to, not the same as, other encoders at the same quality.
    """
    return through_jpeg(images, config.quality, config.subsampling)


def write_outlier_table(work: Workspace) -> None:
    """Writes outliers/outliers.parquet: one row per outlier, how each was made."""
    config, images = work.config.outliers, work.sources
    recipe, n = outlier_recipe(work.config), len(images)
    labels = source_labels(work)
    n_clusters = len(read_cluster_names(work))
    low, high = recipe.guidance_interval or (None, None)
    turns = np.repeat(np.arange(config.per_image), n)
    targets = [
        draw_target_labels(labels, images.ids, n_clusters, recipe.seed + turn)
        for turn in range(config.per_image)
    ]
    ids = np.tile(images.ids, config.per_image).tolist()
    m = len(ids)
    table = pa.table(
        {
            "id": outlier_ids(work).tolist(),
            "source_id": ids,
            "label": np.tile(labels, config.per_image),
            "target_label": np.concatenate(targets),
            "start_timestep": pa.array([recipe.start_timestep] * m, pa.int32()),
            "sigma": pa.array([work.schedule.sigma(recipe.start_timestep)] * m, pa.float32()),
            "guidance_scale": pa.array([recipe.guidance_scale] * m, pa.float32()),
            "guidance_sigma_lo": pa.array([low] * m, pa.float32()),
            "guidance_sigma_hi": pa.array([high] * m, pa.float32()),
            "num_inference_steps": pa.array([recipe.num_inference_steps] * m, pa.int32()),
            "solver": [recipe.solver] * m,
            "eta": pa.array([recipe.eta] * m, pa.float32()),
            "seed": recipe.seed + turns,
        }
    )
    path = work.folder / "outliers" / "outliers.parquet"
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial)
    os.replace(partial, path)
