"""Times the drawing of the built-in sets against drawing similar scenes one by one with Pillow.

Run as `python bench/data.py`. Both sides use one thread and are timed by processor time, which other work on
the machine hardly moves. On both sides an image depends only on its index.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sdviz.data.sources import shapes

N_IMAGES = 2_000
N_PEER_IMAGES = 300
REPETITIONS = 7
BAR_IMAGES_PER_SEC = 2_000

SIZE_PX = shapes.SIZE_PX
SUPERSAMPLING = 4


def _polygon(n: int, inner: float | None = None) -> list[tuple[float, float]]:
    """Corners of a regular polygon of unit radius, or of a star with that inner radius."""
    radii = [1.0] * n if inner is None else [1.0, inner] * n
    angles = np.pi / 2 + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return [(r * float(np.cos(a)), r * float(np.sin(a))) for r, a in zip(radii, angles, strict=True)]


_SQUARE = [(-0.74, -0.74), (0.74, -0.74), (0.74, 0.74), (-0.74, 0.74)]
_CROSS = [(0.27, 0.94), (0.27, 0.27), (0.94, 0.27), (0.94, -0.27), (0.27, -0.27), (0.27, -0.94)]
_CROSS += [(-x, -y) for x, y in _CROSS]
_ARROW = [(0.0, 1.0), (0.8, 0.08), (0.23, 0.08), (0.23, -1.0), (-0.23, -1.0), (-0.23, 0.08), (-0.8, 0.08)]
_HOURGLASS = [(-0.78, 0.86), (0.78, 0.86), (0.07, 0.0), (0.78, -0.86), (-0.78, -0.86), (-0.07, 0.0)]
_POLYGONS = {2: _SQUARE, 3: _polygon(3), 4: _polygon(5, 0.44), 5: _CROSS, 8: _ARROW, 9: _HOURGLASS}


def draw_with_pillow(index: int) -> np.ndarray:
    """Draws one scene with an object of `shapes` as a user would, 4x supersampled, uint8 (32,32,3)."""
    rng = np.random.default_rng((0, index))
    # 1. a two-colour gradient with soft clouds
    angle = rng.uniform(0, 2 * np.pi)
    grid = (np.arange(SIZE_PX) - 15.5) / 16
    ramp = (grid[None, :] * np.cos(angle) + grid[:, None] * np.sin(angle)) * 0.36 + 0.5
    first, second = rng.uniform(0.1, 0.9, (2, 3))
    knots = Image.fromarray(rng.uniform(-1, 1, (5, 5)).astype(np.float32))
    clouds = np.asarray(knots.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))
    tint = rng.uniform(-0.16, 0.16, 3)
    scene = first * (1 - ramp[..., None]) + second * ramp[..., None] + clouds[..., None] * tint

    # 2. the object's mask, drawn large and shrunk
    side = SIZE_PX * SUPERSAMPLING
    radius = rng.uniform(6.5, 10.0) * SUPERSAMPLING
    room = min(14.5 * SUPERSAMPLING - radius, 6.0 * SUPERSAMPLING)
    cx, cy = side / 2 + rng.uniform(-1, 1, 2) * room
    tilt = rng.uniform(0, 2 * np.pi)
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)

    def place(x: float, y: float) -> tuple[float, float]:
        return cx + radius * (x * cos - y * sin), cy - radius * (x * sin + y * cos)

    def disk(x: float, y: float, r: float, fill: int = 255) -> None:
        px, py = place(x, y)
        draw.ellipse([px - r * radius, py - r * radius, px + r * radius, py + r * radius], fill=fill)

    label = int(rng.integers(10))
    if label in _POLYGONS:
        draw.polygon([place(x, y) for x, y in _POLYGONS[label]], fill=255)
    elif label == 0:
        disk(0, 0, 0.84)
    elif label == 1:
        disk(0, 0, 0.93)
        disk(0, 0, 0.47, fill=0)
    elif label == 6:
        disk(0, 0, 0.92)
        disk(0.46, 0, 0.74, fill=0)
    else:
        draw.polygon(
            [place(x, y) for x, y in [(0.0, -0.92), (0.87, 0.18), (0.0, 0.62), (-0.87, 0.18)]], fill=255
        )
        disk(-0.45, 0.42, 0.49)
        disk(0.45, 0.42, 0.49)
    alpha = np.asarray(mask.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX), np.float32)[..., None] / 255

    # 3. its colour, with shading, over the background, and slight noise
    candidates = rng.uniform(0.03, 0.97, (6, 3))
    colour = candidates[np.square(candidates - (first + second) / 2).sum(axis=1).argmax()]
    shade = rng.uniform(-0.16, 0.16, 2)
    light = 1 + grid[None, :] * shade[0] + grid[:, None] * shade[1]
    scene = scene + (colour * light[..., None] - scene) * alpha
    level = scene * 255 + rng.normal(0, 2.0, scene.shape)
    return np.clip(np.round(level), 0, 255).astype(np.uint8)


def _draw_ours(rows: np.ndarray) -> np.ndarray:
    return shapes.SOURCE.load("shapes", "train", lambda n: rows, SIZE_PX, "raise", pictures=True).images


def _draw_peer(rows: np.ndarray) -> np.ndarray:
    return np.stack([draw_with_pillow(row) for row in rows.tolist()])


def _images_per_sec(draw: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> float:
    start = time.process_time()
    draw(rows)
    return len(rows) / (time.process_time() - start)


def main() -> None:
    """Prints the images per second of both sides, the medians of seven turns, and their ratio."""
    ours: list[float] = []
    peer: list[float] = []
    for repetition in range(REPETITIONS + 1):
        ours.append(_images_per_sec(_draw_ours, np.arange(N_IMAGES) + repetition * N_IMAGES))
        peer.append(_images_per_sec(_draw_peer, np.arange(N_PEER_IMAGES) + repetition * N_PEER_IMAGES))
    # the first of each warms up
    mine, theirs = statistics.median(ours[1:]), statistics.median(peer[1:])
    print(f"sdviz.data.sources.shapes, in batches        {mine:8.0f} images/s (bar: {BAR_IMAGES_PER_SEC})")
    print(f"PIL.ImageDraw, one image at a time   {theirs:8.0f} images/s")
    print(f"ratio                                {mine / theirs:8.1f}")


if __name__ == "__main__":
    main()
