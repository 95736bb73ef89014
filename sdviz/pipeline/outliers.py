"""Stage `outliers`: makes SD outliers of the training images.

Reads pseudo_labels/ and diffusion/; writes wrong/ and right/ (shards of pictures) and outliers.parquet.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from ..config.tree import RunConfig
from ..outliers import Recipe, draw_target_labels
from ..table_files import write_parquet
from . import diffusion
from .shared.labels import read_cluster_names, source_labels
from .shared.shards import Plan, make_shards, read_shards
from .workspace import Metrics, Settings, Stage, Workspace, branches, has_detector, is_main_process

Kind = Literal["wrong", "right"]  # which label the U-Net was given; also the name of the shards' folder
# controls that need images denoised under their right label
CONTROLS_OF_REBUILT = frozenset({"right_label", "right_label_as_id"})


def outlier_recipe(config: RunConfig) -> Recipe:
    """The recipe in `outliers`, completed by `defaults`."""
    own, defaults = config.outliers, config.defaults.model_dump()
    given = own.model_dump(include=set(defaults), exclude_none=True)
    recipe = Recipe(**defaults | given, eta=own.eta, guidance_interval=own.guidance_interval, seed=own.seed)
    recipe.check(config.max_train_timestep)
    return recipe


def kinds_needed(config: RunConfig) -> tuple[Kind, ...]:
    """The kinds of pictures to make: "right" only if the detector's training or a control needs it."""
    rebuilt = config.detector is not None and config.detector.reconstructed_id > 0
    for_controls = CONTROLS_OF_REBUILT & set(config.evaluation.controls)
    return ("wrong", "right") if rebuilt or for_controls else ("wrong",)


def settings(config: RunConfig) -> Settings:
    """The settings that decide the outliers under wrong labels."""
    return diffusion.depends_on(config) | branches(config, "diffusion", "defaults", "outliers")


def depends_on(config: RunConfig) -> Settings:
    """As `settings`, with the kinds of pictures to make."""
    return settings(config) | {"kinds": kinds_needed(config)}


def make(work: Workspace) -> Metrics | None:
    """Makes `per_image` SD outliers of every image in `work.sources`, shard by shard.

    Row r is the outlier of image r % N with seed + r // N. Complete shards are kept after an interruption.
    """
    n_rows = len(work.sources) * work.config.outliers.per_image
    labels, recipe = source_labels(work), outlier_recipe(work.config)
    kinds = kinds_needed(work.config)
    folder = work.stage_folder("outliers")
    plans = [Plan(folder / kind, kind == "right", work.sources, labels, recipe, n_rows) for kind in kinds]
    rate = make_shards(work, plans)
    if rate is None:
        return None
    if not is_main_process():
        return {}
    _write_table(work)
    return {"outliers": n_rows, "outliers_images_per_sec": rate or None}


def read_outliers(work: Workspace, kind: Kind) -> np.ndarray:
    """The pictures of stage `outliers`, uint8 (M,H,W,3), in the order of outliers.parquet."""
    n_rows = len(work.sources) * work.config.outliers.per_image
    return read_shards(work.folder / "outliers" / kind, n_rows, work.config.outliers.shard_size)


def outlier_labels(work: Workspace) -> np.ndarray:
    """The y~ of each outlier, int64 (M,)."""
    return np.tile(source_labels(work), work.config.outliers.per_image)


def outlier_ids(work: Workspace) -> np.ndarray:
    """The id of each outlier, str (M,): its source's id, "~" and its seed."""
    turns = range(work.config.outliers.per_image)
    seed = outlier_recipe(work.config).seed
    return np.concatenate([np.char.add(work.sources.ids.astype(str), f"~{seed + turn}") for turn in turns])


def _write_table(work: Workspace) -> None:
    """Writes outliers/outliers.parquet: how each outlier was made, one row each."""
    per_image, source_ids, recipe = (
        work.config.outliers.per_image,
        work.sources.ids,
        outlier_recipe(work.config),
    )
    labels, n_clusters = source_labels(work), len(read_cluster_names(work))
    low, high = recipe.guidance_interval or (None, None)
    seeds = recipe.seed + np.arange(per_image)
    targets = [draw_target_labels(labels, source_ids, n_clusters, seed) for seed in seeds.tolist()]
    m = len(labels) * per_image
    table = pa.table(
        {
            "id": outlier_ids(work).tolist(),
            "source_id": np.tile(source_ids, per_image).tolist(),
            "label": outlier_labels(work),
            "target_label": np.concatenate(targets),
            "start_timestep": pa.array([recipe.start_timestep] * m, pa.int32()),
            "sigma": pa.array([work.schedule.sigma(recipe.start_timestep)] * m, pa.float32()),
            "guidance_scale": pa.array([recipe.guidance_scale] * m, pa.float32()),
            "guidance_sigma_lo": pa.array([low] * m, pa.float32()),
            "guidance_sigma_hi": pa.array([high] * m, pa.float32()),
            "num_inference_steps": pa.array([recipe.num_inference_steps] * m, pa.int32()),
            "solver": [recipe.solver] * m,
            "eta": pa.array([recipe.eta] * m, pa.float32()),
            "seed": np.repeat(seeds, len(labels)),
        }
    )
    write_parquet(table, work.folder / "outliers" / "outliers.parquet")


STAGE = Stage(
    make,
    depends_on,
    title="Outliers",
    is_wanted=has_detector,
    is_shared=True,
    memory_settings=("outliers.batch_size",),
)
