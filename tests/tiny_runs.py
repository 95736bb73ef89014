"""The smallest runs: three colours of 8x8 pictures, a U-Net of 8 channels, an encoder of 4."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 70), "red": (210, 50, 60)}
OTHER_COLOURS = {"pink": (230, 130, 190), "yellow": (220, 210, 60)}

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


# on top of TINY: from unlabelled images to a detector
TINY_DETECTOR = """
views: {{area: [0.6, 1.0], hue: 0.0, brightness: 0.1, contrast: 0.1, saturation: 0.1, grey_share: 0.0}}
encoder:
  width: 4
  simclr: {{total_steps: {steps}, batch_size: 16, projection_hidden: 16, projection_dim: 8,
           save_every_sec: {save_every_sec}, optimizer: {{learning_rate: 1e-2}}}}
labels:
  source: scan
  n_clusters: 3
  scan: {{total_steps: {steps}, batch_size: 24, heads: 2, neighbours: 3, save_every_sec: {save_every_sec},
         optimizer: {{learning_rate: 1e-2}}}}
  self_label: {{total_steps: {steps}, batch_size: 24, threshold: 0.6, save_every_sec: {save_every_sec},
               optimizer: {{learning_rate: 1e-3}}}}
outliers: {{shard_size: 8, batch_size: 4}}
detector: {{epochs: {epochs}, batch_size: 8, snapshot_ids: 24, reconstructed_id: 0.3,
           save_every_sec: {save_every_sec}}}
evaluation:
  near: ["folder:{near}"]
  validation: ["folder:{validation}"]
  score: {{k: 3}}
  bootstrap: 50
bundle: {{outlier_pictures: 10}}
"""


def write_pictures(
    folder: Path,
    n_each: int = 8,
    colours: dict[str, tuple[int, int, int]] = COLOURS,
    size_px: int = 8,
    seed: int = 0,
) -> Path:
    """Square PNGs in one sub-folder for each colour."""
    rng = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(n_each):
            pixels = np.clip(np.array(colour) + rng.integers(-30, 31, (size_px, size_px, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def write_splits(root: Path, name: str, splits: dict[str, np.ndarray]) -> None:
    """A set of the data root with named splits: uint8 (N,H,W,3) each, of classes a, b, a, b, ..."""
    for split, images in splits.items():
        cells = []
        for image in images:
            out = BytesIO()
            Image.fromarray(image).save(out, "PNG")
            cells.append({"bytes": out.getvalue(), "path": None})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(cells, kind), "label": [i % 2 for i in range(len(images))]})
        table = table.replace_schema_metadata({"class_names": '["a", "b"]'})
        pq.write_table(table, root / f"{name}_{split}.parquet")


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


def write_tiny_detector_config(
    folder: Path,
    diffusion_steps: int = 40,
    save_every_sec: float = 100.0,
    n_each: int = 12,
    steps: int = 40,
    epochs: int = 3,
) -> Path:
    """The pictures, OOD pictures of other colours, and a configuration with every stage, under `folder`."""
    pictures = write_pictures(folder / "pictures", n_each)
    near = write_pictures(folder / "near", 4, OTHER_COLOURS)
    validation = write_pictures(folder / "validation", 4, OTHER_COLOURS, seed=1)
    text = TINY.format(
        folder=pictures, clusterer_steps=1, diffusion_steps=diffusion_steps, save_every_sec=save_every_sec
    )
    text += TINY_DETECTOR.format(
        near=near, validation=validation, save_every_sec=save_every_sec, steps=steps, epochs=epochs
    )
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path
