"""Stage `controls`: detectors trained by the same recipe with one thing changed.

Reads what stage `detector` reads; writes controls/<name>/, features as stage `features` writes them.
"""

from __future__ import annotations

import numpy as np

from ..config.tree import RunConfig
from ..nn.pixels import to_images, to_tensor
from ..nn.randomness import image_noise
from . import detector
from .detector import detector_config, train
from .features import write_features
from .outliers import outlier_recipe, read_outliers
from .workspace import Metrics, Settings, Workspace

# the share of ID images that control right_label_as_id replaces by rebuilt ones
AS_ID_SHARE = 0.5


def depends_on(config: RunConfig) -> Settings:
    """The detector and which controls there are."""
    own = config.evaluation.model_dump(mode="json", include={"controls"})
    return detector.depends_on(config) | own


def make(work: Workspace) -> Metrics | None:
    """Trains a detector for each control.

    right_label: the "outliers" were denoised under the right label; noise: they are noised images;
    right_label_as_id: half of the ID images are replaced by the U-Net's rebuilt ones (right label);
    lambda_zero: lambda of Eq. 4 is 0.
    """
    config = detector_config(work)
    n = len(work.sources)
    for control in work.config.evaluation.controls:
        out = work.stage_folder("controls") / control
        if control == "no_training" or (out / "features.safetensors").is_file():
            continue
        out.mkdir(exist_ok=True)
        changed: dict[str, float] = {}
        if control == "right_label":
            # the same pictures must not be shown as ID as well
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
