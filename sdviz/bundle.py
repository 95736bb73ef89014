"""A trained system as one folder: what the app opens and what a run ends in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from . import __version__
from .diffusion.noise import content_ids
from .diffusion.samplers import Callback
from .diffusion.schedule import NoiseSchedule
from .nn.classifier import SmallClassifier
from .nn.device import resolve_device
from .nn.inference import InferenceModel, prepare_for_inference
from .nn.unet import NoisePredictor
from .outliers import (
    OutlierBatch,
    Recipe,
    check_images,
    check_labels,
    draw_target_labels,
    generate_outliers,
    to_tensor,
)

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PICKLE_SUFFIXES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}


class BundleError(ValueError):
    """A bundle that is missing, incomplete, altered or foreign; the message names the file."""


class Defaults(BaseModel):
    """What `Bundle.generate` does when it is not told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_timestep: int
    guidance_scale: float
    num_inference_steps: int
    solver: str


class Manifest(BaseModel):
    """bundle.json.

    Attributes:
        format_version: Of this layout.
        dataset: The set that the networks were trained on, as `data.load` knows it.
        n_clusters: C.
        class_names: A name for each cluster.
        labels_from: Where the training labels came from: "ground truth", "SCAN", ...
        image_size: Height and width in pixels.
        pixel_unshuffle: Factor of the U-Net's pixel-unshuffle, 1 for none.
        max_train_timestep: The largest S that the U-Net was trained for.
        defaults: Recipe used where none is given.
        clusterer: Arguments of `SmallClassifier`, where there is one.
        config: The resolved configuration of the run that made it.
        metrics: What was measured in that run.
        versions: Of the software that made it.
        files: SHA-256 of every other file, by its path in the folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    dataset: str
    n_clusters: int = Field(ge=1)
    class_names: tuple[str, ...]
    labels_from: str
    image_size: int = Field(ge=1)
    pixel_unshuffle: int = Field(ge=1)
    max_train_timestep: int = Field(ge=1)
    defaults: Defaults
    clusterer: dict[str, int] | None = None
    config: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, str] = {}


@dataclass(eq=False)
class Bundle:
    """A trained system.

    Attributes:
        manifest: bundle.json.
        noise_predictor: The U-Net, float32, on the CPU.
        schedule: Its noise schedule.
        clusterer: Names the cluster of any image; None in a bundle without one.
        path: The folder it was loaded from; None if it was made in memory.
        hash: SHA-256 of bundle.json, and with it of everything in the folder; "" in memory.
        device: Where `generate` and `pseudo_label` compute.
    """

    manifest: Manifest
    noise_predictor: NoisePredictor
    schedule: NoiseSchedule
    clusterer: SmallClassifier | None = None
    path: Path | None = None
    hash: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _ready: InferenceModel | None = None

    # --- load and save ----------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Bundle:
        """Opens a bundle; every file is checked against its SHA-256 before it is read.

        Args:
            path: The folder.
            device: "auto" takes CUDA, then MPS, then the CPU.

        Raises:
            BundleError: A missing, changed, foreign or pickled file, named in the message.
            ValueError: A device that this machine does not have.
        """
        path = Path(path)
        where = resolve_device(device)
        manifest, digest = read_manifest(path)
        _check_files(path, manifest)
        predictor = _load_noise_predictor(path, manifest)
        schedule = _load_schedule(path, manifest)
        clusterer = _load_clusterer(path, manifest)
        return cls(manifest, predictor, schedule, clusterer, path, digest, where)

    def save(self, path: str | Path) -> Bundle:
        """Writes the folder whole or not at all: a sibling is filled and opened, then takes its place.

        The U-Net is kept in float16, so that a bundle made in memory draws slightly other pictures
        than the saved one; the saved one and any copy of it draw the same.

        Returns:
            The bundle as it now stands on disk.

        Raises:
            BundleError: The path is there and holds anything but a bundle, or this bundle's parts
                do not fit each other; what was there stays.
        """
        path = Path(path).resolve()
        _check_replaceable(path)
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            self._write(partial)
            saved = Bundle.load(partial, device=str(self.device))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if path.exists():
            old = path.with_name(path.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
        saved.path = path
        return saved

    def _write(self, folder: Path) -> None:
        # 1. the parts; float16 halves the folder, and loading widens it again
        unet = self.noise_predictor.unet.to("cpu")
        # where it was once loaded from is nobody's business
        config = {key: value for key, value in unet.config.items() if key != "_name_or_path"}
        half = UNet2DModel.from_config(config)
        half.load_state_dict(unet.state_dict())
        half.half().save_pretrained(folder / "unet")
        betas = self.schedule.betas
        DDPMScheduler(
            num_train_timesteps=len(self.schedule),
            beta_start=round(float(betas[0]), 8),
            beta_end=round(float(betas[-1]), 8),
            beta_schedule="linear",
        ).save_pretrained(folder / "scheduler")
        if self.clusterer is not None:
            save_file(self.clusterer.state_dict(), folder / "clusterer.safetensors")

        # 2. the manifest over them
        files = {p.relative_to(folder).as_posix(): _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        clusterer = dict(self.clusterer.config) if self.clusterer is not None else None
        manifest = self.manifest.model_copy(update={"files": files, "clusterer": clusterer})
        (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")

    # --- use --------------------------------------------------------------------------------------

    @property
    def n_clusters(self) -> int:
        """C."""
        return self.manifest.n_clusters

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each cluster."""
        return self.manifest.class_names

    @property
    def inference(self) -> InferenceModel:
        """The noise predictor as the device runs it best, made at the first use."""
        if self._ready is None:
            self._ready = prepare_for_inference(self.noise_predictor, self.device)
        return self._ready

    def recipe(
        self,
        start_timestep: int | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        eta: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> Recipe:
        """A checked recipe; None takes the bundle's default.

        Raises:
            ValueError: A value out of its range, S above what the U-Net was trained for included.
        """
        d = self.manifest.defaults
        recipe = Recipe(
            d.start_timestep if start_timestep is None else start_timestep,
            d.guidance_scale if guidance_scale is None else guidance_scale,
            d.num_inference_steps if num_inference_steps is None else num_inference_steps,
            d.solver if solver is None else solver,
            eta,
            guidance_interval,
            seed,
        )
        recipe.check(self.manifest.max_train_timestep)
        return recipe

    @torch.no_grad()
    def pseudo_label(self, images: np.ndarray, batch_size: int = 512) -> tuple[np.ndarray, np.ndarray]:
        """The cluster of each image.

        Args:
            images: uint8 (N,H,W,3).
            batch_size: Images at a time.

        Returns:
            labels int64 (N,) in 0..C-1 and confidence float32 (N,) in 0..1 (the largest probability).

        Raises:
            ValueError: A bundle without a clusterer, or images of another shape.
        """
        images = check_images(images, self.manifest.image_size)
        if self.clusterer is None:
            raise ValueError("this bundle has no clusterer: give the labels")
        clusterer = self.clusterer.to(self.device).eval()
        parts = [
            clusterer(to_tensor(images[i : i + batch_size], self.device)).softmax(1).max(1)
            for i in range(0, len(images), batch_size)
        ]
        confidence = torch.cat([p.values for p in parts]).float().cpu().numpy()
        return torch.cat([p.indices for p in parts]).cpu().numpy().astype(np.int64), confidence

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features of the detector, float32 (N,D).

        Raises:
            ValueError: Always in this version of the format: it holds neither detector nor encoder.
        """
        raise ValueError("this bundle has neither a detector nor an encoder: it makes outliers only")

    def generate(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int] | None = None,
        start_timestep: int | None = None,
        guidance_scale: float | None = None,
        target_labels: np.ndarray | Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        eta: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
        seed: int = 0,
        ids: np.ndarray | Sequence[str] | None = None,
        callback: Callback | None = None,
        batch_size: int = 64,
    ) -> OutlierBatch:
        """Makes one outlier of each image.

        Args:
            images: uint8 (N,H,W,3).
            labels: int (N,), y~; None or -1 takes `pseudo_label`.
            start_timestep: S; None, here and below, takes the bundle's default.
            guidance_scale: w of Eq. 3.
            target_labels: int (N,), the condition, used as it is; None draws by Eq. 2.
            num_inference_steps: K.
            solver: "ddpm", "ddim" or "dpmpp_2m".
            eta: DDIM's share of fresh noise, 0..1.
            guidance_interval: (sigma_lo, sigma_hi); guidance counts only between them.
            seed: With an image's id, it fixes its noise and wrong label.
            ids: str (N,); None takes the SHA-256 of each image's bytes.
            callback: (step, x_t, x_0 prediction), for each step of each batch in turn.
            batch_size: Images at a time on the device.

        Raises:
            ValueError: Images, labels, ids or settings out of range, named with the range; unknown labels
                in a bundle without a clusterer.
        """
        images = check_images(images, self.manifest.image_size)
        recipe = self.recipe(
            start_timestep, guidance_scale, num_inference_steps, solver, eta, guidance_interval, seed
        )
        n = len(images)
        names = content_ids(images) if ids is None else np.asarray(ids, str)
        y = np.full(n, -1, np.int64) if labels is None else _int_column("labels", labels, n)
        _check_length("ids", names, n)
        if (y < -1).any() or (y >= self.n_clusters).any():
            check_labels("labels", y[y != -1], self.n_clusters)
        if (y == -1).any():
            unknown = y == -1
            y[unknown] = self.pseudo_label(images[unknown])[0]
        if target_labels is None:
            targets = draw_target_labels(y, names, self.n_clusters, recipe.seed)
        else:
            targets = _int_column("target_labels", target_labels, n)
            check_labels("target_labels", targets, self.n_clusters)
        return generate_outliers(
            self.inference,
            self.schedule,
            images,
            y,
            targets,
            names,
            recipe,
            self.n_clusters,
            self.device,
            batch_size,
            callback,
        )


def make_manifest(**fields: Any) -> Manifest:  # noqa: ANN401
    """A manifest of the current format and software; `fields` are those of `Manifest`."""
    packages = ("torch", "diffusers", "numpy")
    versions = {p: metadata.version(p) for p in packages}
    versions |= {"sdviz": __version__, "python": platform.python_version()}
    return Manifest(format_version=FORMAT_VERSION, versions=versions, **fields)


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """bundle.json and its SHA-256, without opening any weights.

    Raises:
        BundleError: No bundle, or one of another format.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    if file.is_symlink():
        raise BundleError(f"{file}: leads out of the bundle")
    raw = file.read_bytes()
    tree = _parse_json(file, raw)
    version = tree.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(f"{file}: format version {version}, this sdviz reads {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BundleError(f"{file}: {where}: {first['msg']}") from error
    if len(manifest.class_names) != manifest.n_clusters:
        raise BundleError(f"{file}: {manifest.n_clusters} clusters, {len(manifest.class_names)} names")
    d = manifest.defaults
    recipe = Recipe(d.start_timestep, d.guidance_scale, d.num_inference_steps, d.solver)
    try:
        recipe.check(manifest.max_train_timestep)
    except ValueError as error:
        raise BundleError(f"{file}: defaults: {error}") from error
    return manifest, hashlib.sha256(raw).hexdigest()


def _check_files(path: Path, manifest: Manifest) -> None:
    present = {
        name for name in _names_in(path) if not any(part.startswith(".") for part in PurePosixPath(name).parts)
    }
    for name in sorted(present | set(manifest.files)):
        if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES:
            raise BundleError(f"{path / name}: may hold a pickle, which is never loaded; use safetensors")
    for name, digest in manifest.files.items():
        file, inside = path / name, PurePosixPath(name)
        # a linked folder on the way counts as much as a linked file
        links = [part for part in (inside, *inside.parents[:-1]) if (path / part).is_symlink()]
        if inside.is_absolute() or ".." in inside.parts or links:
            raise BundleError(f"{file}: leads out of the bundle")
        if not file.is_file():
            raise BundleError(f"{file} is missing")
        if _sha256(file) != digest:
            raise BundleError(f"{file} was changed or cut: its SHA-256 is not the one in {MANIFEST}")
    foreign = sorted(present - set(manifest.files) - {MANIFEST})
    if foreign:
        raise BundleError(f"{path / foreign[0]} does not belong to the bundle: {MANIFEST} does not list it")
    for needed in (UNET_WEIGHTS, "unet/config.json", "scheduler/scheduler_config.json"):
        if needed not in manifest.files:
            raise BundleError(f"{path / needed} is missing")


def _names_in(path: Path) -> set[str]:
    """Every file and every link below the folder, by its path in it."""
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_symlink() or not p.is_dir()}


def _check_replaceable(path: Path) -> None:
    """Raises BundleError where `Bundle.save` would take away more than a bundle."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        manifest, _ = read_manifest(path)
    except BundleError as error:
        raise BundleError(f"{path} is there and is not a bundle: not overwritten") from error
    foreign = sorted(_names_in(path) - set(manifest.files) - {MANIFEST})
    if foreign:
        raise BundleError(f"{path / foreign[0]} does not belong to the bundle there: not overwritten")


def _load_noise_predictor(path: Path, manifest: Manifest) -> NoisePredictor:
    folder, weights = path / "unet", path / UNET_WEIGHTS
    config = _parse_json(folder / "config.json", (folder / "config.json").read_bytes())
    factor = manifest.pixel_unshuffle
    wanted = {
        "_class_name": "UNet2DModel",
        "num_class_embeds": manifest.n_clusters + 1,
        "in_channels": 3 * factor**2,
        "out_channels": 3 * factor**2,
        "sample_size": manifest.image_size // factor,
    }
    for key, value in wanted.items():
        if config.get(key) != value:
            raise BundleError(
                f"{folder / 'config.json'}: {key} is {config.get(key)!r}, {MANIFEST} needs {value!r}"
            )
    try:
        unet, info = UNet2DModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # a stranger's configuration can make the constructor raise anything
        raise BundleError(f"{weights}: not this bundle's U-Net ({_first_line(error)})") from error
    # diffusers goes on with untrained weights where some are missing
    if info["missing_keys"] or info["unexpected_keys"]:
        key = (info["missing_keys"] or info["unexpected_keys"])[0]
        raise BundleError(f"{weights}: not this bundle's U-Net ({key} is missing or too many)")
    return NoisePredictor(unet.eval().requires_grad_(False), factor)


def _load_schedule(path: Path, manifest: Manifest) -> NoiseSchedule:
    file = path / "scheduler" / "scheduler_config.json"
    config = _parse_json(file, file.read_bytes())
    if config.get("beta_schedule") != "linear" or config.get("prediction_type", "epsilon") != "epsilon":
        raise BundleError(f"{file}: only a linear schedule with epsilon prediction is supported")
    try:
        schedule = NoiseSchedule.linear(config["num_train_timesteps"], config["beta_start"], config["beta_end"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BundleError(f"{file}: not a noise schedule ({_first_line(error)})") from error
    if len(schedule) < manifest.max_train_timestep:
        raise BundleError(
            f"{file}: {len(schedule)} timesteps, but {MANIFEST} says max_train_timestep"
            f" {manifest.max_train_timestep}"
        )
    return schedule


def _load_clusterer(path: Path, manifest: Manifest) -> SmallClassifier | None:
    if manifest.clusterer is None:
        return None
    file = path / "clusterer.safetensors"
    if file.name not in manifest.files:
        raise BundleError(f"{file} is missing")
    n_classes = manifest.clusterer.get("n_classes")
    if n_classes != manifest.n_clusters:
        raise BundleError(f"{file}: {n_classes} classes, but {MANIFEST} says {manifest.n_clusters}")
    try:
        clusterer = SmallClassifier(**manifest.clusterer)
        clusterer.load_state_dict(load_file(file))
    except (TypeError, RuntimeError, ValueError, SafetensorError) as error:
        raise BundleError(f"{file}: not this bundle's clusterer ({_first_line(error)})") from error
    return clusterer.eval().requires_grad_(False)


def _parse_json(file: Path, raw: bytes) -> dict[str, Any]:
    """The object in a JSON file; BundleError, naming the file, where there is none."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: not valid JSON ({_first_line(error)})") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{file}: not a JSON object")
    return tree


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_length(name: str, column: np.ndarray, n: int) -> None:
    if column.shape != (n,):
        raise ValueError(f"{name}: shape {column.shape}, but there are {n} images")


def _int_column(name: str, values: np.ndarray | Sequence[int], n: int) -> np.ndarray:
    column = np.array(values)
    _check_length(name, column, n)
    if not np.issubdtype(column.dtype, np.integer):
        raise ValueError(f"{name} must be whole numbers, not {column.dtype}")
    return column.astype(np.int64)
