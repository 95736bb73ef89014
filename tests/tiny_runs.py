"""The smallest run that goes through every stage: three colours of 8x8 pictures, a U-Net of 8 channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 70), "red": (210, 50, 60)}

TINY = """
profile: tiny
data: {{id: "folder:{folder}", size_px: 8}}
clusterer: {{width: 4, total_steps: {clusterer_steps}, batch_size: 8, max_shift_px: 1, colour_jitter: 0.1}}
diffusion:
  unet: {{channels: [8, 8], layers_per_block: 1, pixel_unshuffle: 1, dropout: 0.1}}
  max_train_timestep: 400
  batch_size: 4
  total_steps: {diffusion_steps}
  learning_rate: 1e-3
  warmup_steps: 5
  cooldown: 0.3
  ema_decay: 0.9
  save_every_sec: {save_every_sec}
defaults: {{start_timestep: 50, guidance_scale: 1, num_inference_steps: 2, solver: ddim}}
device: cpu
"""


def write_pictures(folder: Path, n_each: int = 8) -> Path:
    """PNGs of 8x8 pixels in one sub-folder for each colour."""
    dice = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(n_each):
            pixels = np.clip(np.array(colour) + dice.integers(-30, 31, (8, 8, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def write_tiny_config(
    folder: Path, clusterer_steps: int = 40, diffusion_steps: int = 40, save_every_sec: float = 100.0
) -> Path:
    """The pictures and tiny.yaml beside them, under `folder`."""
    pictures = write_pictures(folder / "pictures")
    path = folder / "tiny.yaml"
    path.write_text(
        TINY.format(
            folder=pictures,
            clusterer_steps=clusterer_steps,
            diffusion_steps=diffusion_steps,
            save_every_sec=save_every_sec,
        )
    )
    return path
