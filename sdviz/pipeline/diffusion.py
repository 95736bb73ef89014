"""Stage `diffusion`: trains the U-Net by Eq. 1.

Reads pseudo_labels/; writes diffusion/unet/, a `diffusers.UNet2DModel`.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from .. import data
from ..config.tree import RunConfig
from ..diffusion.training import train_noise_predictor
from ..nn.batches import slices
from ..nn.device import resolve_device
from ..nn.loop import Execution, LoopReport
from ..nn.phase_means import PhaseMeans, PhaseStatistics, measure_phases
from ..nn.pixels import to_tensor
from ..nn.unet import NoisePredictor, build_noise_predictor
from . import pseudo_labels
from .shared.labels import read_cluster_names, read_labels
from .workspace import Metrics, Progress, Settings, Stage, Workspace, is_main_process


def depends_on(config: RunConfig) -> Settings:
    """The labels and `diffusion`, without `phase_means`, which only sampling uses."""
    own = config.diffusion.model_dump(mode="json", exclude={"phase_means"})
    return pseudo_labels.depends_on(config) | {"diffusion": own}


def make(work: Workspace) -> Metrics | None:
    """Trains the U-Net; resumes from diffusion/state.pt if it exists."""
    labels, config, out = read_labels(work), work.config.diffusion, work.stage_folder("diffusion")

    def report(r: LoopReport) -> None:
        values = {"loss": r.loss, "learning_rate": r.learning_rate, "images_per_sec": r.images_per_sec}
        values["elapsed_sec"] = r.elapsed_sec
        work.on_progress(Progress("diffusion", r.step, r.total_steps, r.progress, r.eta_sec, values))

    torch.manual_seed(config.seed)
    n_clusters = len(read_cluster_names(work))
    network = build_noise_predictor(config.unet, n_clusters, work.config.data.size_px)
    images, device, stop = work.images.images, work.config.device, work.should_stop
    averaged, complete = train_noise_predictor(
        network, images, labels, work.schedule, config, Execution(device, out / "state.pt", report, stop)
    )
    if not complete:
        return None
    if not is_main_process():
        return {}
    averaged.unet.save_pretrained(out / "unet")
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    return {
        "diffusion_loss": _eq1_loss(work, averaged, labels),
        "diffusion_steps": state["step"],
        "diffusion_images_seen": state["step"] * config.batch_size,
        "diffusion_training_sec": round(state["elapsed_sec"], 1),
    }


def load_noise_predictor(work: Workspace) -> NoisePredictor:
    """The network of stage `diffusion`, on the CPU, rounded to float16 as in a bundle."""
    n_clusters = len(read_cluster_names(work))
    predictor = build_noise_predictor(work.config.diffusion.unet, n_clusters, work.config.data.size_px)
    weights = load_file(work.folder / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")
    predictor.unet.load_state_dict({key: value.half().float() for key, value in weights.items()})
    add_phase_means(work, predictor)
    return predictor.eval().requires_grad_(False)


def phase_statistics(work: Workspace, pixel_unshuffle: int) -> PhaseStatistics | None:
    """Statistics of the training images; None without pixel-unshuffle, `phase_means` or two images."""
    if pixel_unshuffle == 1 or not work.config.diffusion.phase_means or len(work.images) < 2:
        return None
    return measure_phases(work.images.images, pixel_unshuffle)


def add_phase_means(work: Workspace, predictor: NoisePredictor) -> None:
    """Sets a trained network's `phases`."""
    factor = predictor.pixel_unshuffle
    statistics = phase_statistics(work, factor)
    if statistics is not None:
        n_pixels = (work.config.data.size_px // factor) ** 2
        predictor.phases = PhaseMeans(statistics, work.schedule.alphas_cumprod, n_pixels)


@torch.no_grad()
def _eq1_loss(work: Workspace, network: NoisePredictor, labels: np.ndarray) -> float:
    """Eq. 1 on up to 512 fixed training images, with t spread evenly over the trained timesteps."""
    where = resolve_device(work.config.device)
    network = network.to(where)
    rows = data.permutation(len(work.images), 0)[:512]
    x_0 = to_tensor(work.images.images[rows])
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.arange(len(rows)) * work.config.max_train_timestep // len(rows)
    x_t = work.schedule.add_noise(x_0, noise, t + 1)
    y = torch.tensor(labels[rows])
    total = 0.0
    for part in slices(len(rows), 64):
        eps = network(*(one[part].to(where) for one in (x_t, t, y)))
        total += float(F.mse_loss(eps, noise[part].to(where), reduction="sum"))
    network.to("cpu")
    return total / noise.numel()


STAGE = Stage(
    make, depends_on, title="Noise predictor", is_shared=True, memory_settings=("diffusion.batch_size",)
)
