"""Stage `controls`: trains detectors with one thing changed.

Reads the inputs of stage `detector`; writes controls/<name>/detector.safetensors.
"""

from __future__ import annotations

import numpy as np

from ..config.tree import RunConfig
from ..nn.batches import slices
from ..nn.pixels import to_images, to_tensor
from ..nn.randomness import image_noise
from . import detector
from .detector import train
from .outliers import outlier_recipe, read_outliers
from .shared.shards import reencode
from .workspace import Metrics, Settings, Stage, Workspace, has_detector

# what each control changes in `detector`
CHANGES: dict[str, dict[str, float]] = {
    # the same pictures must not count as ID, too
    "right_label": {"reconstructed_id": 0.0},
    "right_label_as_id": {"reconstructed_id": 0.5},
    "lambda_zero": {"outlier_weight": 0.0},
    "noise": {},
    "no_outliers": {"reconstructed_id": 0.0},
}


def depends_on(config: RunConfig) -> Settings:
    """The detector and the list of controls."""
    return detector.depends_on(config) | config.evaluation.model_dump(mode="json", include={"controls"})


def make(work: Workspace) -> Metrics | None:
    """Trains a detector for each control.

    right_label: the outliers are images denoised under their right label; noise: they are noised images;
    right_label_as_id: half of the ID images are replaced by such denoised images; lambda_zero: lambda of Eq. 4
    is 0; no_outliers: as many steps on ID images alone. Control no_training trains nothing.
    """
    config, n = work.config.detector, len(work.sources)
    assert config is not None
    for control in trained_controls(work.config):
        out = work.stage_folder("controls") / control
        if (out / "detector.safetensors").is_file():
            continue
        out.mkdir(exist_ok=True)
        config_here = config.model_copy(update=CHANGES[control])
        rebuilt = read_outliers(work, "right")[:n] if config_here.reconstructed_id else None
        outliers = outliers_of(work, control)
        if not train(work, "controls", out, config_here, outliers, rebuilt, training=control):
            return None
        (out / "state.pt").unlink(missing_ok=True)
    return {}


def trained_controls(config: RunConfig) -> list[str]:
    """The controls that are detectors of their own."""
    return [control for control in config.evaluation.controls if control != "no_training"]


def outliers_of(work: Workspace, control: str) -> np.ndarray:
    """The outliers that a control is trained with, uint8 (M,H,W,3), M 0 without any."""
    if control == "no_outliers":
        return work.sources.images[:0]
    if control == "right_label":
        return read_outliers(work, "right")[: len(work.sources)]
    return noised_images(work) if control == "noise" else read_outliers(work, "wrong")


def noised_images(work: Workspace) -> np.ndarray:
    """x_S of every image in `work.sources`, uint8 (N,H,W,3): the outliers' noise without denoising.

    They go through JPEG as all generated pictures do.
    """
    recipe = outlier_recipe(work.config)
    images = work.sources
    made = np.empty_like(images.images)
    for rows in slices(len(images), 512):
        x_0 = to_tensor(images.images[rows])
        noise = image_noise(images.ids[rows].tolist(), tuple(x_0.shape[1:]), recipe.seed, "start")
        made[rows] = to_images(work.schedule.add_noise(x_0, noise, recipe.start_timestep))
    return reencode(made, work.config.outliers.jpeg)


STAGE = Stage(
    make,
    depends_on,
    title="Controls",
    is_wanted=lambda config: has_detector(config) and bool(trained_controls(config)),
    memory_settings=("detector.batch_size",),
)
