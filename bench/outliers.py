"""Compares the making of outliers from file to file with the sampler alone.

    python bench/outliers.py [--bundle checkpoints/shapes] [--images 1000] [--repeats 5] [--json FILE]

The peer is `sdviz.outliers.generate_outliers` over decoded images with known labels, in batches of 64, without
writing. Two ways from file to file use the same weights, recipe and batches, and read a Parquet file of PNGs:

- the stage `outliers` of a run loads the network, makes the outliers and writes shards and their table;
- `generate_folder`, the work of `python -m sdviz generate`, finds the labels by the bundle's classifier, makes
  the outliers and writes one PNG each and manifest.csv.

The three take turns. A share is the median over the rounds, and the pictures of all three must be equal.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import load_average, seconds, write_json

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.bundle.labels import source_labels
from sdviz.config.nodes import DiffusionConfig, UNetConfig
from sdviz.config.tree import (
    DataConfig,
    DefaultsConfig,
    EvaluationConfig,
    LabelsConfig,
    OutliersConfig,
    RunConfig,
)
from sdviz.nn.device import device_name
from sdviz.outliers import DiffusionModel, Recipe, draw_target_labels, generate_outliers
from sdviz.pipeline import generate_folder
from sdviz.pipeline.any_images.generate_folder import file_names
from sdviz.pipeline.outliers import make as make_outliers
from sdviz.pipeline.outliers import read_outliers
from sdviz.pipeline.shared.labels import write_labels
from sdviz.pipeline.workspace import Workspace

SHARE_BAR = 0.9
BATCH_SIZE = 64


def write_parquet(path: Path, images: data.ImageSet) -> None:
    """Writes images as PNGs in the Hugging Face layout."""
    blobs = []
    for image in images.images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        blobs.append({"bytes": stream.getvalue(), "path": None})
    pq.write_table(pa.table({"image": blobs}), path)


class Bench:
    """The three sides over the same images."""

    def __init__(self, path: str, n: int, folder: Path) -> None:
        self.path, self.folder = Path(path), folder
        self.bundle = Bundle.load(path)
        self.recipe: Recipe = self.bundle.recipe()
        self.source = f"parquet:{folder / 'drawn_train.parquet'}"
        write_parquet(folder / "drawn_train.parquet", data.load(self.bundle.manifest.dataset, "test", limit=n))
        self.images = self.read()
        self.labels, _ = source_labels(self.bundle, self.images)
        self.targets = draw_target_labels(
            self.labels, self.images.ids, self.bundle.n_clusters, self.recipe.seed
        )
        r = self.recipe
        unet = UNetConfig.model_validate(self.bundle.manifest.setting("diffusion", "unet"), strict=False)
        self.config = RunConfig(
            data=DataConfig(id=self.source),
            labels=LabelsConfig(n_clusters=self.bundle.n_clusters),
            diffusion=DiffusionConfig(
                unet=unet,
                max_train_timestep=self.bundle.manifest.max_train_timestep,
                phase_means=self.bundle.manifest.phases is not None,
            ),
            defaults=DefaultsConfig(
                start_timestep=r.start_timestep,
                guidance_scale=r.guidance_scale,
                num_inference_steps=r.num_inference_steps,
                solver=r.solver,
            ),
            outliers=OutliersConfig(batch_size=BATCH_SIZE, seed=r.seed),
            evaluation=EvaluationConfig(controls=()),
        )

    def read(self) -> data.ImageSet:
        """Reads the images from the file."""
        name, split = data.parse_source(self.source)
        return data.load(name, split)

    def sampler(self, images: data.ImageSet) -> Callable[[], np.ndarray]:
        """The sampler alone."""
        made = generate_outliers(
            DiffusionModel(
                self.bundle.inference, self.bundle.schedule, self.bundle.n_clusters, self.bundle.device
            ),
            images.images,
            self.labels[: len(images)],
            self.targets[: len(images)],
            images.ids,
            self.recipe,
            BATCH_SIZE,
        )
        return lambda: made.outliers

    def prepare_run(self, turn: int) -> Path:
        """Prepares a run's folder for the stage `outliers`."""
        run = self.folder / f"run-{turn}"
        run.mkdir()
        shutil.copytree(self.path / "unet", run / "diffusion" / "unet")
        work = self.workspace(run)
        write_labels(work, self.labels, np.ones(len(self.labels), np.float32), tuple(self.bundle.class_names))
        return run

    def workspace(self, run: Path) -> Workspace:
        """A new workspace, which has read nothing."""
        return Workspace(run, self.config, lambda progress: None, lambda: False)

    def stage(self, run: Path) -> Callable[[], np.ndarray]:
        """Reads, generates and writes as the stage does."""
        work = self.workspace(run)
        assert make_outliers(work) is not None
        return lambda: read_outliers(work, "wrong")

    def png_folder(self, turn: int) -> Callable[[], np.ndarray]:
        """Reads, generates and writes as the command `generate` does."""
        out = self.folder / f"out-{turn}"
        images = self.read()
        result = generate_folder(self.bundle, images, out, self.recipe, "random", BATCH_SIZE)
        assert result.made == len(images)
        return lambda: np.stack([np.asarray(Image.open(out / name)) for name in file_names(images)])

    def clear(self, turn: int) -> None:
        """Removes the files of a round."""
        for name in ("run", "out"):
            shutil.rmtree(self.folder / f"{name}-{turn}", ignore_errors=True)


@dataclass(frozen=True)
class Share:
    """One way end to end, against the sampler alone."""

    name: str
    images_per_sec: float
    share: float
    share_min: float
    share_max: float
    repeats: int
    same_pictures: bool


def measure(bench: Bench, repeats: int) -> tuple[float, list[Share]]:
    """Times the three, which begin in turn.

    Returns:
        The sampler's images per second (median), and the others' shares of it.
    """
    names = ["sampler", "stage", "folder"]
    times: dict[str, list[float]] = {name: [] for name in names}
    same = {name: True for name in names}
    n = len(bench.images)
    bench.sampler(bench.images.take(np.arange(min(n, BATCH_SIZE))))
    for turn in range(repeats):
        run = bench.prepare_run(turn)
        pictures = {}
        for name in names[turn % 3 :] + names[: turn % 3]:
            calls: dict[str, Callable[[], Callable[[], np.ndarray]]] = {
                "sampler": lambda: bench.sampler(bench.images),
                "stage": lambda run=run: bench.stage(run),
                "folder": lambda turn=turn: bench.png_folder(turn),
            }
            taken, result = seconds(calls[name], bench.bundle.device)
            times[name].append(taken)
            pictures[name] = result()
        for name in names:
            same[name] &= bool((pictures[name] == pictures["sampler"]).all())
        bench.clear(turn)
        rates = ", ".join(f"{name} {n / times[name][-1]:.1f}" for name in names)
        print(f"round {turn + 1}, images/s: {rates}", file=sys.stderr, flush=True)
    shares = []
    for name in names[1:]:
        parts = [a / b for a, b in zip(times["sampler"], times[name], strict=True)]
        rate = n / statistics.median(times[name])
        share = statistics.median(parts)
        shares.append(Share(name, rate, share, min(parts), max(parts), repeats, same[name]))
    return n / statistics.median(times["sampler"]), shares


def main() -> int:
    """Measures and prints; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="checkpoints/shapes")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.bundle, args.images, Path(folder))
        r, device = bench.recipe, bench.bundle.device
        print(
            f"{args.images:,} outliers, S={r.start_timestep}, w={r.guidance_scale:g},"
            f" {r.num_inference_steps} {r.solver} steps, batches of {BATCH_SIZE}."
            f" Bundle {bench.bundle.hash[:12]}, torch {torch.__version__}, {device_name(device)}"
            f"{load_average()}.\n",
            flush=True,
        )
        own, shares = measure(bench, args.repeats)

    titles = {"stage": "stage `outliers`, shards", "folder": "`generate`, PNGs"}
    print(f"| {device_name(device)} | images/s | of the sampler | min .. max | rounds | pictures | bar |")
    print("|---|--:|--:|--:|--:|---|---|")
    print(f"| sampler alone | {own:.1f} | 1 | | {args.repeats} | | |")
    bars = {}
    for s in shares:
        bars[s.name] = s.share >= SHARE_BAR and s.same_pictures
        print(
            f"| {titles[s.name]} | {s.images_per_sec:.1f} | **{s.share:.3f}** |"
            f" {s.share_min:.3f} .. {s.share_max:.3f} | {s.repeats} |"
            f" {'same' if s.same_pictures else 'OTHERS'} |"
            f" at least {SHARE_BAR:g}: {'met' if bars[s.name] else 'MISSED'} |"
        )
    if device.type != "cuda":
        print("\nCUDA: not measured: no CUDA.")
    tree = {
        "bundle_sha256": bench.bundle.hash,
        "torch": torch.__version__,
        "device": device_name(device),
        "images": args.images,
        "recipe": asdict(r),
        "sampler_images_per_sec": own,
        "end_to_end": [asdict(s) for s in shares],
        "bars": bars,
    }
    write_json(args.json, tree)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
