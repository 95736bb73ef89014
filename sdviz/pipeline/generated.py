"""Stage `generated`: makes images from noise, and an SD outlier of each, for machines without the training set.

Reads the clusterer, diffusion/, detector/ and features/; writes shards of pictures, generated.parquet and, with
a detector, generated.safetensors (see `sdviz.bundle.generated`).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load_file as load_arrays

from ..bundle.generated import FEATURES, GENERATED, GENERATED_OUTLIERS, TABLE, encode_pngs
from ..bundle.manifest import sha256
from ..config.tree import RunConfig
from ..detection.score import SDScore
from ..diffusion.from_noise import sample_from_noise
from ..evaluation.sets import HEADS
from ..nn.batches import predict
from ..nn.detector import detector_outputs
from ..nn.device import resolve_device
from ..nn.inference import prepare_for_inference
from ..nn.pixels import to_images
from ..outliers import DiffusionModel, check_finite, draw_target_labels, generate_outliers
from ..table_files import write_parquet
from ..text import tree_hash
from . import clusterer, features, outliers
from .clusterer import load_clusterer
from .detector import load_detector
from .diffusion import load_noise_predictor
from .outliers import outlier_recipe
from .shared.labels import read_cluster_names
from .shared.shards import is_whole, reencode, shard_path
from .workspace import Metrics, Progress, Settings, Stage, Workspace, branches, write_arrays

# images made together: what an interruption loses
SHARD = 50
# the set and the role of each half of the table
_ROLES = {GENERATED: GENERATED, GENERATED_OUTLIERS: "sd"}


def depends_on(config: RunConfig) -> Settings:
    """Everything that makes outliers and, with a detector, features and scores of them."""
    own = {"generated": config.bundle.generated.model_dump(mode="json")}
    if config.detector is None:
        return outliers.settings(config) | clusterer.depends_on(config) | own
    score = config.evaluation.score.model_dump(mode="json")
    return features.depends_on(config) | branches(config, "defaults") | own | {"score": score}


def make(work: Workspace) -> Metrics | None:
    """Makes the images in shards, evenly over the clusters; complete shards are kept after an interruption.

    The clusterer gives the y~ of each image, whatever label it was made under, and so that of its outlier.
    """
    n, out = work.config.bundle.generated.n_images, work.stage_folder("generated")
    numbers, told = np.divmod(np.arange(n), len(read_cluster_names(work)))
    digest = _digest(work)
    ids = np.array([f"{GENERATED}/{digest}/{c:03d}-{i:04d}" for c, i in zip(told, numbers, strict=True)])
    started, first_rows = time.monotonic(), range(0, n, SHARD)
    missing = [first for first in first_rows if not is_whole(shard_path(out, first))]
    model = _model(work)
    for i, first in enumerate(missing):
        if work.should_stop():
            return None
        rows = slice(first, first + SHARD)
        write_arrays(shard_path(out, first), _shard(work, model, told[rows], ids[rows]))
        spent, left = time.monotonic() - started, len(missing) - i - 1
        share = 1 - left / len(first_rows)
        values = {"images_per_sec": len(ids[rows]) * (i + 1) / spent}
        work.on_progress(Progress("generated", round(share * n), n, share, spent / (i + 1) * left, values))
    _write_parts(work, out, told, ids)
    return {"generated_images": n}


def _digest(work: Workspace) -> str:
    """A hash of all that makes the images from their ids, which carry it."""
    weights = work.folder / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    own = work.config.bundle.generated.model_dump(mode="json", exclude={"n_images"})
    return tree_hash({"unet": sha256(weights), "phases": work.config.diffusion.phase_means} | own)[:8]


def _model(work: Workspace) -> DiffusionModel:
    where = resolve_device(work.config.device)
    network = prepare_for_inference(load_noise_predictor(work), where)
    return DiffusionModel(network, work.schedule, len(read_cluster_names(work)), where)


def _shard(work: Workspace, model: DiffusionModel, told: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Some images from noise, their clusters, and an outlier of each."""
    config, recipe = work.config, outlier_recipe(work.config)
    x_0 = sample_from_noise(
        model.predict,
        model.schedule,
        torch.tensor(told, device=model.device),
        ids.tolist(),
        config.data.size_px,
        model.null_label,
        num_inference_steps=config.bundle.generated.num_inference_steps,
        guidance_scale=config.bundle.generated.guidance_scale,
    )
    check_finite(x_0)
    images = reencode(to_images(x_0), config.outliers.jpeg)
    clusters, confidence = predict(load_clusterer(work), images, config.device)
    targets = draw_target_labels(clusters, ids, model.null_label, recipe.seed)
    made = generate_outliers(model, images, clusters, targets, ids, recipe, config.outliers.batch_size)
    return {
        "images": images,
        "outliers": reencode(made.outliers, config.outliers.jpeg),
        "clusters": clusters,
        "confidence": confidence,
        "target_labels": targets,
    }


def _write_parts(work: Workspace, out: Path, told: np.ndarray, ids: np.ndarray) -> None:
    """Writes the table and, with a detector, scores in it and features beside it."""
    shards = [load_arrays(shard_path(out, first)) for first in range(0, len(ids), SHARD)]
    made = {key: np.concatenate([one[key] for one in shards]) for key in shards[0]}
    seed = outlier_recipe(work.config).seed
    of_outliers = np.array([f"{one}~{seed}" for one in ids.tolist()])
    nothing = np.full(len(ids), -1, np.int64)
    halves = []
    stored: dict[str, np.ndarray] = {}
    for name, pictures, own_ids, targets in (
        (GENERATED, made["images"], ids, nothing),
        (GENERATED_OUTLIERS, made["outliers"], of_outliers, made["target_labels"]),
    ):
        columns = {
            "set": [name] * len(ids),
            "role": [_ROLES[name]] * len(ids),
            "id": own_ids.tolist(),
            "told": told,
            "cluster": made["clusters"],
            "confidence": made["confidence"],
            "target_label": targets,
            "png": encode_pngs(pictures),
        }
        if work.config.detector is not None:
            said = detector_outputs(load_detector(work), pictures, work.config.device)
            stored[name] = said.features.astype(np.float16)
            stored |= {f"{name}.{head}": getattr(said, head) for head in HEADS}
            found = _score(work).score(stored[name].astype(np.float32))
            columns |= {"distance": found.distance, "votes": found.votes, "total": found.total}
        halves.append(pa.table(columns))
    write_parquet(pa.concat_tables(halves), out / TABLE)
    if stored:
        write_arrays(out / FEATURES, stored)


def _score(work: Workspace) -> SDScore:
    """Eq. 6 over the run's banks. No generated image is in them, so that none has to be left out."""
    banks = load_arrays(work.folder / "features" / "features.safetensors")
    id_features, of_outliers = (banks[f"{bank}_features"].astype(np.float32) for bank in ("id", "outlier"))
    score = SDScore(**work.config.evaluation.score.model_dump())
    return score.fit(id_features, of_outliers if len(of_outliers) else None, device=work.config.device)


STAGE = Stage(
    make,
    depends_on,
    title="Generated images",
    is_wanted=lambda config: config.bundle.generated.n_images > 0,
    memory_settings=("outliers.batch_size",),
)
