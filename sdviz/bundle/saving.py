"""Writes a bundle's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn

from .manifest import MANIFEST, sha256

if TYPE_CHECKING:
    from .core import Bundle


def write_folder(bundle: Bundle, folder: Path) -> None:
    """Writes a bundle into an empty folder, bundle.json last."""
    from diffusers import DDPMScheduler, UNet2DModel

    # 1. the parts; the U-Net in float16, which loading turns into float32 again
    unet = bundle.noise_predictor.unet.to("cpu")
    # without the path that it was loaded from
    config = {key: value for key, value in unet.config.items() if key != "_name_or_path"}
    half = UNet2DModel.from_config(config)
    half.load_state_dict(unet.state_dict())
    half.half().save_pretrained(folder / "unet")
    betas = bundle.schedule.betas
    DDPMScheduler(
        num_train_timesteps=len(bundle.schedule),
        beta_start=round(float(betas[0]), 8),
        beta_end=round(float(betas[-1]), 8),
        beta_schedule="linear",
    ).save_pretrained(folder / "scheduler")
    for name in ("clusterer", "encoder", "detector"):
        network = getattr(bundle, name)
        if network is not None:
            save_weights(network, folder / f"{name}.safetensors")
    for name, source in bundle.parts.items():
        shutil.copyfile(source, folder / name)

    # 2. the manifest of these files
    files = {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    encoder = bundle.encoder if bundle.encoder is not None else bundle.detector and bundle.detector.encoder
    about = {
        "files": files,
        "clusterer": dict(bundle.clusterer.config) if bundle.clusterer is not None else None,
        "encoder": dict(encoder.config) if encoder is not None else None,
        "unit_features": bundle.detector is not None and bundle.detector.unit_features,
    }
    manifest = bundle.manifest.model_copy(update=about)
    (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


def save_weights(module: nn.Module, file: Path) -> None:
    """Saves weights without loss: float32 tensors become float16 where that is exact."""
    state = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
    for key, value in state.items():
        half = value.half()
        if value.dtype == torch.float32 and value.any() and torch.equal(half.float(), value):
            state[key] = half
    save_file(state, file)
