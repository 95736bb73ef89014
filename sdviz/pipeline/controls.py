"""Stage `controls`: trains detectors with one thing changed.

Reads the inputs of stage `detector`; writes into controls/<name>/ the same files as stage `features`.
"""

from __future__ import annotations

import numpy as np

from ..config.tree import RunConfig
from ..nn.batches import slices
from ..nn.pixels import to_images, to_tensor
from ..nn.randomness import image_noise
from . import detector
from .detector import train
from .features import write_features
from .outliers import outlier_recipe, read_outliers
from .workspace import Metrics, Settings, Stage, Workspace, has_detector

# the share of ID images that control right_label_as_id replaces
AS_ID_SHARE = 0.5


def depends_on(config: RunConfig) -> Settings:
    """The detector and the list of controls."""
    return detector.depends_on(config) | config.evaluation.model_dump(mode="json", include={"controls"})


def make(work: Workspace) -> Metrics | None:
    """Trains a detector for each control.

    right_label: the outliers are images denoised under their right label; noise: they are noised images;
    right_label_as_id: half of the ID images are replaced by such denoised images; lambda_zero: lambda of Eq. 4
    is 0. Control no_training trains nothing: its features come from stage `features`.
    """
    config, n = work.config.detector, len(work.sources)
    assert config is not None
    for control in work.config.evaluation.controls:
        out = work.stage_folder("controls") / control
        if control == "no_training" or (out / "features.safetensors").is_file():
            continue
        out.mkdir(exist_ok=True)
        changed: dict[str, float] = {}
        if control == "right_label":
            # the same pictures must not count as ID, too
            outliers, changed = read_outliers(work, "right")[:n], {"reconstructed_id": 0.0}
        elif control == "right_label_as_id":
            outliers, changed = read_outliers(work, "wrong"), {"reconstructed_id": AS_ID_SHARE}
        elif control == "lambda_zero":
            outliers, changed = read_outliers(work, "wrong"), {"outlier_weight": 0.0}
        else:
            outliers = noised_images(work)
        config_here = config.model_copy(update=changed)
        rebuilt = read_outliers(work, "right")[:n] if config_here.reconstructed_id else None
        trained = train(work, "controls", out, config_here, outliers, rebuilt, None)
        if trained is None:
            return None
        write_features(work, out, trained[0], outliers)
        (out / "state.pt").unlink(missing_ok=True)
    return {}


def noised_images(work: Workspace) -> np.ndarray:
    """x_S of every image in `work.sources`, uint8 (N,H,W,3): the outliers' noise without denoising."""
    recipe = outlier_recipe(work.config)
    images = work.sources
    made = np.empty_like(images.images)
    for rows in slices(len(images), 512):
        x_0 = to_tensor(images.images[rows])
        noise = image_noise(images.ids[rows].tolist(), tuple(x_0.shape[1:]), recipe.seed, "start")
        made[rows] = to_images(work.schedule.add_noise(x_0, noise, recipe.start_timestep))
    return made


STAGE = Stage(
    make,
    depends_on,
    title="Controls",
    is_wanted=lambda config: has_detector(config) and bool(config.evaluation.controls),
    reads_sets=True,
    memory_settings=("evaluation.limit",),
)
