"""Stage `sd_test`: makes SD outliers of held-out ID images, which are scored as one more OOD set (Table 4).

Reads the clusterer and diffusion/; writes sd_test/test/ (shards of pictures).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .. import data
from ..config.tree import RunConfig
from ..data import ImageSet
from ..nn.feature_cache import kept_predictions
from ..outliers import Recipe
from . import clusterer, outliers
from .clusterer import load_clusterer
from .outliers import outlier_recipe
from .shared.shards import Plan, make_shards, read_shards
from .workspace import Metrics, Settings, Stage, Workspace, has_detector, is_main_process

# the name of that OOD set in reports
SD_TEST = "sd-outliers"


def sd_test_recipe(config: RunConfig) -> Recipe:
    """The recipe in `evaluation.sd_test`, completed by `outliers`."""
    t = config.evaluation.sd_test
    assert t is not None
    recipe = replace(
        outlier_recipe(config), start_timestep=t.start_timestep, guidance_scale=t.guidance_scale, seed=t.seed
    )
    recipe.check(config.max_train_timestep)
    return recipe


def sd_test_sources(work: Workspace) -> ImageSet:
    """The held-out ID images to make SD outliers of."""
    t, test = work.config.evaluation.sd_test, work.test
    assert test is not None and t is not None
    if t.limit is None or t.limit >= len(test):
        return test
    return test.take(data.permutation(len(test), work.config.evaluation.seed)[: t.limit])


def depends_on(config: RunConfig) -> Settings:
    """Settings of outliers, the clusterer, and the choice of held-out images."""
    wanted = config.evaluation.model_dump(mode="json", include={"sd_test", "seed"})
    own = {"sd_test": wanted, "on_overlap": config.data.on_overlap}
    return outliers.settings(config) | clusterer.depends_on(config) | own


def make(work: Workspace) -> Metrics | None:
    """Makes SD outliers of held-out ID images, in shards; the clusterer gives their y~."""
    images, recipe = sd_test_sources(work), sd_test_recipe(work.config)
    labels, _ = kept_predictions(load_clusterer(work), images.images, work.config.device)
    plan = Plan(work.stage_folder("sd_test") / "test", False, images, labels, recipe, len(images))
    rate = make_shards(work, [plan])
    if rate is None:
        return None
    return {"sd_test_outliers": len(images)} if is_main_process() else {}


def read_sd_test(work: Workspace) -> ImageSet:
    """The pictures of stage `sd_test`, labelled with the classes of their sources."""
    of = sd_test_sources(work)
    seed = sd_test_recipe(work.config).seed
    ids = np.array([f"{one}~{seed}" for one in of.ids.tolist()])
    pictures = read_shards(work.folder / "sd_test" / "test", len(of), work.config.outliers.shard_size)
    return ImageSet(SD_TEST, of.split, pictures, of.labels, ids, of.class_names)


STAGE = Stage(
    make,
    depends_on,
    title="SD test",
    is_wanted=lambda config: has_detector(config) and config.evaluation.sd_test is not None,
    is_shared=True,
)
