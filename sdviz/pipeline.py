"""The stages of a run, file to file; and outliers of any images as a folder of PNGs.

A run's folder holds one folder for each stage and, once it is complete, `<stage>.done.json` beside it:

    labels      labels/pseudo_labels.parquet      id, label, confidence
    clusterer   clusterer/clusterer.safetensors   a `SmallClassifier`
    diffusion   diffusion/unet/                   a `diffusers.UNet2DModel`; state.pt while in training
    bundle      bundle/                           a `sdviz.bundle.Bundle`
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from . import data
from .bundle import Bundle, Defaults, make_manifest
from .config import RunConfig
from .data import DataError, ImageSet
from .diffusion.schedule import NoiseSchedule
from .diffusion.training import TrainingReport, train_noise_predictor
from .nn.classifier import SmallClassifier
from .nn.device import resolve_device
from .nn.unet import NoisePredictor, build_noise_predictor, n_parameters
from .outliers import Recipe, check_labels, draw_target_labels, manifest_row, to_tensor
from .scan.classifier_training import accuracy, train_classifier

Metrics = dict[str, float | int | str]
Shared = TypeVar("Shared", bool, str)


class PipelineError(ValueError):
    """A folder that cannot be worked in as asked; the message is one line."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: Its name.
        step: Steps done.
        total: Steps in all.
        share: 0..1; ahead of step / total where a time limit ends the stage first.
        eta_sec: Seconds to the stage's end.
        values: What was measured: loss, learning rate, images a second.
    """

    stage: str
    step: int
    total: int
    share: float
    eta_sec: float
    values: dict[str, float]


@dataclass(frozen=True, eq=False)
class Workspace:
    """What a stage works with.

    Attributes:
        folder: The run's folder.
        config: Its configuration.
        on_progress: Told how far a stage is.
        should_stop: Asked before every step.
    """

    folder: Path
    config: RunConfig
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]

    @cached_property
    def images(self) -> ImageSet:
        """The training images."""
        d = self.config.data
        return data.load(d.id, d.split, d.limit, self.config.seed, d.on_error, d.size_px)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        return NoiseSchedule.linear(self.config.diffusion.num_train_timesteps)


# --------------------------------------------------------------------------------------------------
# The stages
# --------------------------------------------------------------------------------------------------


def run_stages(work: Workspace, on_stage: Callable[[str, bool], None] | None = None) -> bool:
    """Runs every stage that is not complete yet.

    Under `accelerate launch` the processes share the diffusion training; the main one does the rest,
    and what it finds and decides counts for all.

    Args:
        work: The run.
        on_stage: Told of each stage before it starts, and whether it is skipped as complete.

    Returns:
        Whether all are complete; False where `work.should_stop` ended it.

    Raises:
        PipelineError: A stage was completed under another configuration.
    """
    main = is_main_process()
    for name, make in STAGES.items():
        marker = work.folder / f"{name}.done.json"
        wanted = config_hash(work.config, name)
        if from_main(marker.is_file(), work.config.device):
            if json.loads(marker.read_text("utf-8"))["config_sha256"] != wanted:
                raise PipelineError(f"{work.folder}: stage {name} was made with another configuration")
            if on_stage is not None:
                on_stage(name, True)
            continue
        if from_main(work.should_stop(), work.config.device):
            return False
        if on_stage is not None:
            on_stage(name, False)
        metrics = make(work) if main or name == "diffusion" else None
        if not from_main(metrics is not None, work.config.device):
            return False
        if main:
            text = json.dumps({"config_sha256": wanted, "metrics": metrics}, indent=1)
            write_atomically(marker, text + "\n")
            # the resume state is several times as large as what the stage made
            (work.folder / name / "state.pt").unlink(missing_ok=True)
    return True


def is_main_process() -> bool:
    """Whether this is the only process, or the first of an `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


def from_main(value: Shared, device: str) -> Shared:
    """The main process's value, in every process of an `accelerate launch`.

    Args:
        value: bool, str or the like; what other processes give is not used.
        device: "auto" or a device's name, as `make_accelerator` takes it.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return value
    PartialState(cpu=resolve_device(device).type == "cpu")
    return broadcast_object_list([value])[0]


def make_labels(work: Workspace) -> Metrics:
    """Stage `labels`: the training label y~ of each image.

    Raises:
        DataError: Unlabelled images, fewer than two classes, a class without an image, or no such test
            split.
        ValueError: An image size that the U-Net cannot take.
    """
    images = work.images
    n_classes = len(images.class_names)
    unlabelled = int((images.labels < 0).sum())
    if unlabelled:
        raise DataError(
            f"{images.name}: {unlabelled} of {len(images)} images have no label, and labels.source is"
            f" {work.config.labels.source}"
        )
    if n_classes < 2:
        raise DataError(f"{images.name}: outliers need at least 2 classes, there is {n_classes}")
    counts = np.bincount(images.labels, minlength=n_classes)
    if not counts.all():
        missing = images.class_names[int(counts.argmin())]
        raise DataError(f"{images.name}: no image of class {missing!r} among the {len(images)} to train on")
    # a test split or a network that cannot be is found here, not after the clusterer's training
    d = work.config.data
    if d.test_split is not None:
        data.load(d.id, d.test_split, limit=1, on_error=d.on_error, size_px=d.size_px)
    with torch.device("meta"):
        network = build_noise_predictor(work.config.diffusion.unet, n_classes, d.size_px)

    table = pa.table(
        {"id": images.ids.tolist(), "label": images.labels, "confidence": np.ones(len(images), np.float32)}
    )
    path = _labels_path(work)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return {
        "images": len(images),
        "clusters": n_classes,
        "diffusion_parameters": n_parameters(network),
    }


def make_clusterer(work: Workspace) -> Metrics | None:
    """Stage `clusterer`: a classifier trained on the labels, measured on the test split where there is one.

    It restarts from its beginning when it was interrupted: it takes a few minutes at most.
    """
    started = time.monotonic()
    images, labels = work.images, read_labels(work)
    config = work.config.clusterer

    def report(step: int, loss: float) -> None:
        eta = (time.monotonic() - started) / step * (config.total_steps - step)
        share = step / config.total_steps
        work.on_progress(Progress("clusterer", step, config.total_steps, share, eta, {"loss": loss}))

    clusterer = train_classifier(
        images.images,
        labels,
        len(images.class_names),
        config,
        work.config.seed,
        work.config.device,
        report,
        work.should_stop,
    )
    if clusterer is None:
        return None
    metrics: Metrics = {"clusterer_training_sec": round(time.monotonic() - started, 1)}
    test = _test_set(work)
    if test is not None:
        share, n = accuracy(clusterer, test.images, test.labels)
        metrics |= {"clusterer_accuracy": share, "clusterer_test_images": n}
    path = _clusterer_path(work)
    path.parent.mkdir(exist_ok=True)
    save_file(clusterer.state_dict(), path)
    return metrics


def make_noise_predictor(work: Workspace) -> Metrics | None:
    """Stage `diffusion`: the U-Net, trained by Eq. 1; resumes from diffusion/state.pt where that is."""
    images, labels = work.images, read_labels(work)
    config = work.config.diffusion
    out = work.folder / "diffusion"
    out.mkdir(exist_ok=True)

    def report(r: TrainingReport) -> None:
        eta = r.elapsed_sec * (1 - r.progress) / r.progress if r.progress else 0.0
        values = {"loss": r.loss, "learning_rate": r.learning_rate, "images_per_sec": r.images_per_sec}
        values["elapsed_sec"] = r.elapsed_sec
        work.on_progress(Progress("diffusion", r.step, r.total_steps, r.progress, eta, values))

    torch.manual_seed(config.seed)
    network = build_noise_predictor(config.unet, len(images.class_names), work.config.data.size_px)
    averaged, complete = train_noise_predictor(
        network,
        images.images,
        labels,
        work.schedule,
        config,
        out / "state.pt",
        work.config.device,
        report,
        work.should_stop,
    )
    if not complete:
        return None
    if not is_main_process():
        return {}
    averaged.unet.save_pretrained(out / "unet")
    state = torch.load(out / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    return {
        "diffusion_loss": _eq1_loss(
            averaged, images, labels, work.schedule, work.config.max_train_timestep, work.config.device
        ),
        "diffusion_steps": state["step"],
        "diffusion_images_seen": state["step"] * config.batch_size,
        "diffusion_training_sec": round(state["elapsed_sec"], 1),
    }


def make_bundle(work: Workspace) -> Metrics:
    """Stage `bundle`: everything in one folder."""
    config, names = work.config, work.images.class_names
    predictor = build_noise_predictor(config.diffusion.unet, len(names), config.data.size_px)
    unet = load_file(work.folder / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")
    predictor.unet.load_state_dict(unet)
    clusterer = SmallClassifier(len(names), config.clusterer.width)
    clusterer.load_state_dict(load_file(_clusterer_path(work)))
    metrics: Metrics = {}
    for stage in ("labels", "clusterer", "diffusion"):
        metrics |= json.loads((work.folder / f"{stage}.done.json").read_text("utf-8"))["metrics"]
    manifest = make_manifest(
        dataset=work.images.name,
        n_clusters=len(names),
        class_names=names,
        labels_from="ground truth",
        image_size=config.data.size_px,
        pixel_unshuffle=predictor.pixel_unshuffle,
        max_train_timestep=config.max_train_timestep,
        defaults=Defaults(**config.defaults.model_dump()),
        config=config.model_dump(mode="json"),
        metrics=metrics,
    )
    bundle = Bundle(manifest, predictor, work.schedule, clusterer).save(work.folder / "bundle")
    return {"bundle_sha256": bundle.hash}


STAGES: dict[str, Callable[[Workspace], Metrics | None]] = {
    "labels": make_labels,
    "clusterer": make_clusterer,
    "diffusion": make_noise_predictor,
    "bundle": make_bundle,
}
# the branches of the configuration that a stage's result depends on
_DEPENDS_ON = {
    "labels": {"data", "labels", "seed"},
    "clusterer": {"data", "labels", "seed", "clusterer"},
    "diffusion": {"data", "labels", "seed", "diffusion"},
    "bundle": {"profile", "data", "labels", "seed", "clusterer", "diffusion", "defaults"},
}


def config_hash(config: RunConfig, stage: str = "bundle") -> str:
    """SHA-256 of the part of the configuration that a stage depends on; the device is in none."""
    tree = config.model_dump(mode="json", include=_DEPENDS_ON[stage])
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def read_labels(work: Workspace) -> np.ndarray:
    """The training labels that stage `labels` wrote, int64 (N,).

    Raises:
        PipelineError: The data set has other images now.
    """
    table = pq.read_table(_labels_path(work))
    if table["id"].to_pylist() != work.images.ids.tolist():
        raise PipelineError(f"{work.images.name} has other images now than when {work.folder} was begun")
    return table["label"].to_numpy().astype(np.int64)


def absolute_source(name: str) -> str:
    """A data set's name; where it is a path, as in folder:pets, with the path made absolute."""
    for kind in ("folder:", "parquet:"):
        path = name.removeprefix(kind)
        if path and path != name:
            return kind + os.path.abspath(Path(path).expanduser())
    return name


def write_atomically(path: Path, text: str) -> None:
    """Puts a file in place whole: a reader sees the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def _labels_path(work: Workspace) -> Path:
    return work.folder / "labels" / "pseudo_labels.parquet"


def _clusterer_path(work: Workspace) -> Path:
    return work.folder / "clusterer" / "clusterer.safetensors"


def _test_set(work: Workspace) -> ImageSet | None:
    """The test split, where the set has one that is not trained on and whose classes are the same."""
    d = work.config.data
    split = d.test_split
    if split is None:
        if "test" not in data.splits(d.id) or work.images.split == "test":
            return None
        split = "test"
    test = data.load(d.id, split, on_error=d.on_error, size_px=d.size_px)
    return test if test.class_names == work.images.class_names and (test.labels >= 0).any() else None


@torch.no_grad()
def _eq1_loss(
    network: NoisePredictor,
    images: ImageSet,
    labels: np.ndarray,
    schedule: NoiseSchedule,
    max_t: int,
    device: str,
) -> float:
    """Eq. 1 of up to 512 fixed training images, t spread evenly over what was trained: no luck of a batch."""
    where = resolve_device(device)
    network = network.to(where)
    rows = data.permutation(len(images), 0)[:512]
    x_0 = to_tensor(images.images[rows])
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.arange(len(rows)) * max_t // len(rows)
    x_t = schedule.add_noise(x_0, noise, t + 1)
    y = torch.tensor(labels[rows])
    total = 0.0
    for part in torch.arange(len(rows)).split(64):
        eps = network(*(one[part].to(where) for one in (x_t, t, y)))
        total += float(F.mse_loss(eps, noise[part].to(where), reduction="sum"))
    network.to("cpu")
    return total / noise.numel()


# --------------------------------------------------------------------------------------------------
# Outliers as a folder of PNGs
# --------------------------------------------------------------------------------------------------

RECIPE = "recipe.json"
MANIFEST = "manifest.csv"
Target = Literal["random", "right"] | int
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class GeneratedFolder:
    """What `generate_folder` did.

    Attributes:
        there: Outliers that the folder held before.
        made: Outliers made now.
        manifest: The manifest.csv over all of them.
    """

    there: int
    made: int
    manifest: Path


def generate_folder(
    bundle: Bundle,
    images: ImageSet,
    out: Path,
    recipe: Recipe,
    target: Target = "random",
    batch_size: int = 64,
    on_progress: Callable[[float, int], None] | None = None,
) -> GeneratedFolder:
    """Makes one outlier of each image, as PNGs with a manifest; what is there already is kept.

    The images are cut into batches by their place in the set, and a batch with a missing file is made
    whole, so what was there before changes no pixel of the rest.

    Args:
        bundle: The maker.
        images: The sources, of the bundle's size.
        out: The folder, made if need be.
        recipe: How, checked by the caller.
        target: "random" draws c_r by Eq. 2, "right" takes y~ (the control), a number takes that cluster.
        batch_size: Images at a time.
        on_progress: Told (images done, images to do), with fractions while a batch is under way.

    Raises:
        PipelineError: The folder holds something else, another process works in it, or the bundle
            cannot label these images or has no such target.
        DataError: Ids that are not unique or not text.
    """
    names = file_names(images)
    try:
        labels = source_labels(bundle, images)
        if target == "random":
            targets = draw_target_labels(labels, images.ids, bundle.n_clusters, recipe.seed)
        else:
            targets = labels.copy() if target == "right" else np.full(len(images), target, np.int64)
            check_labels("target", targets, bundle.n_clusters)
    except ValueError as error:
        raise PipelineError(str(error)) from error

    _claim(
        out,
        {"bundle_sha256": bundle.hash, "source": images.name, "split": images.split, "target": target},
        recipe,
    )
    lock = FileLock(out / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise PipelineError(f"{out}: another process is making outliers in it") from error
    with held:
        for leftover in out.glob("*.partial"):
            leftover.unlink()
        present = np.array([_is_whole(out / name, bundle.manifest.image_size) for name in names])
        there = int(present.sum())
        shards = [slice(i, i + batch_size) for i in range(0, len(images), batch_size)]
        shards = [s for s in shards if not present[s].all()]
        to_do = sum(len(names[s]) for s in shards)
        n_steps = max(1, len(bundle.schedule.timesteps(recipe.start_timestep, recipe.num_inference_steps)))
        done = 0

        def on_step(step: int, x_t: torch.Tensor, x_0: torch.Tensor) -> None:
            if on_progress is not None:
                on_progress(done + len(x_t) * step / n_steps, to_do)

        try:
            for s in shards:
                batch = bundle.generate(
                    images.images[s],
                    labels[s],
                    recipe.start_timestep,
                    recipe.guidance_scale,
                    targets[s],
                    recipe.num_inference_steps,
                    recipe.solver,
                    recipe.eta,
                    recipe.guidance_interval,
                    recipe.seed,
                    images.ids[s],
                    on_step,
                    batch_size,
                )
                for row in np.flatnonzero(~present[s]):
                    _write_png(out / names[s][row], batch.outliers[row])
                    present[s.start + row] = True
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, to_do)
        finally:
            # after an interruption too: it lists what is there
            rows: list[dict[str, str | int | float]] = [
                {
                    "file": names[i],
                    **manifest_row(
                        recipe,
                        bundle.schedule,
                        bundle.class_names,
                        str(images.ids[i]),
                        int(labels[i]),
                        int(targets[i]),
                        bundle.hash,
                    ),
                }
                for i in np.flatnonzero(present)
            ]
            _write_manifest(out, rows)
    return GeneratedFolder(there, len(images) - there, out / MANIFEST)


def source_labels(bundle: Bundle, images: ImageSet) -> np.ndarray:
    """The y~ of each image: the set's own label where the bundle learned those, else the clusterer's.

    Labels of any other set mean nothing to the bundle.

    Returns:
        int64 (N,), 0..C-1.

    Raises:
        ValueError: A label is needed and the bundle has no clusterer.
    """
    m = bundle.manifest
    learned = (
        m.labels_from == "ground truth" and m.dataset == images.name and m.class_names == images.class_names
    )
    labels = images.labels.copy() if learned else np.full(len(images), -1, np.int64)
    unknown = labels < 0
    if unknown.any():
        labels[unknown] = bundle.pseudo_label(images.images[unknown])[0]
    return labels


# ids that sdviz gives itself; a split "tv" would be taken for torchvision's "tv-00012"
_PLAIN_ID = re.compile(r"[a-z0-9-]+/(?!tv/)[a-z]+/(tv-)?[0-9]+", re.ASCII)


def file_names(images: ImageSet) -> list[str]:
    """A file name for each image that depends on its id alone, differs where the ids do and has no path in it.

    "shapes/test/00012" is shapes-test-00012.png; any other id is cut to plain letters, and a hash of
    the whole of it follows an underscore, which no plain id has.

    Raises:
        DataError: Ids that are not unique or not text.
    """
    ids = images.ids.tolist()
    if len(set(ids)) != len(ids):
        raise DataError(f"{images.name}: {len(ids) - len(set(ids))} images have the id of another one")
    names = []
    for one in ids:
        if _PLAIN_ID.fullmatch(one):
            names.append(f"{one.replace('/', '-')}.png")
            continue
        try:
            digest = hashlib.sha256(one.encode()).hexdigest()[:16]
        except UnicodeEncodeError as error:
            raise DataError(f"{images.name}: the id {one!r} is not text") from error
        readable = re.sub(r"[^A-Za-z0-9]+", "-", one)[-80:].strip("-")
        names.append(f"{readable or 'image'}_{digest}.png")
    return names


def _claim(out: Path, asked: dict[str, Any], recipe: Recipe) -> None:
    """Makes the folder ready for this recipe, or says why it cannot be used."""
    asked = json.loads(json.dumps(asked | asdict(recipe)))
    if out.exists() and not out.is_dir():
        raise PipelineError(f"{out} is a file, not a folder")
    out.mkdir(parents=True, exist_ok=True)
    file = out / RECIPE
    if not file.is_file():
        if any(not p.name.startswith(".") and p.name != f"{RECIPE}.partial" for p in out.iterdir()):
            raise PipelineError(f"{out} is not empty and not a folder of outliers: name another")
        write_atomically(file, json.dumps(asked, indent=1) + "\n")
        return
    try:
        held = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise PipelineError(f"{file} is damaged: name another folder") from error
    for key in asked:
        if held.get(key) != asked[key]:
            raise PipelineError(
                f"{out} holds outliers of another recipe ({key} {held.get(key)}, now {asked[key]}):"
                " name another folder"
            )


def _is_whole(path: Path, size_px: int) -> bool:
    """Whether there is a PNG of that size, to its last byte."""
    try:
        blob = path.read_bytes()
        with Image.open(io.BytesIO(blob), formats=["PNG"]) as image:
            image.load()
            # Pillow forgives a cut behind the last pixel
            return blob.endswith(_PNG_END) and image.size == (size_px, size_px) and image.mode == "RGB"
    except (OSError, SyntaxError, ValueError):
        return False


def _write_png(path: Path, image: np.ndarray) -> None:
    partial = path.with_name(path.name + ".partial")
    Image.fromarray(image).save(partial, "PNG")
    os.replace(partial, path)


def _write_manifest(out: Path, rows: list[dict[str, str | int | float]]) -> None:
    """Writes manifest.csv: these rows, then those of earlier calls whose outliers are still there."""
    path = out / MANIFEST
    lines: list[dict[str, Any]] = list(rows)
    if path.is_file():
        files = {row["file"] for row in rows}
        present = {p.name for p in out.glob("*.png")}
        with path.open(encoding="utf-8", newline="") as stream:
            earlier = [row for row in csv.DictReader(stream) if row.get("file") in present - files]
        lines += earlier
    if not lines:
        return
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(lines[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    os.replace(partial, path)
