"""bundle.json: what a bundle contains, and the checks of its files."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import __version__, files
from ..nn.phase_means import PhaseStatistics
from ..outliers import Recipe
from ..text import MAX_LINE, LineError

MANIFEST = "bundle.json"
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
# tables and features for pages; a bundle may lack any of them
PARTS = (
    "pseudo_labels.parquet",
    "outliers.parquet",
    "features.safetensors",
    "features.parquet",
    "encoder_features.safetensors",
    "ood_features.safetensors",
    "snapshots.safetensors",
    "snapshots.parquet",
    "scores.parquet",
    "baselines.parquet",
    "report.json",
    "same_images.parquet",
    "generated.parquet",
    "generated.safetensors",
)
PICKLE_SUFFIXES = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}


# text that pages show in a line
Line = Annotated[str, Field(max_length=MAX_LINE)]


class BundleError(LineError):
    """A missing, incomplete, changed or foreign bundle; the message names the file."""


class Defaults(BaseModel):
    """The default recipe of `Bundle.generate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_timestep: int
    guidance_scale: float
    num_inference_steps: int
    solver: str


class ScoreDefaults(BaseModel):
    """The settings of Eq. 6 that the bundle was measured with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(ge=1)
    alpha: float = Field(ge=0, allow_inf_nan=False)
    normalize: bool


class Threshold(BaseModel):
    """A threshold that was chosen for the bundle; one of the two is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # a score by the bundle's own k, alpha and normalisation
    value: float | None = Field(ge=0, allow_inf_nan=False)
    id_recall: float | None = Field(gt=0, le=100)  # the share of held-out ID images that pass, in %

    @model_validator(mode="after")
    def _is_one(self) -> Threshold:
        if (self.value is None) == (self.id_recall is None):
            raise ValueError("must have a value or an id_recall")
        return self


class Manifest(BaseModel):
    """The content of bundle.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    dataset: Line  # that the networks were trained on: a name for `data.load`
    n_clusters: int = Field(ge=1, le=100_000)
    class_names: tuple[Line, ...]
    labels_from: Line  # the origin of the training labels: "ground truth", "SCAN", ...
    image_size: int = Field(ge=1, le=4096)  # height and width in pixels
    pixel_unshuffle: int = Field(ge=1, le=64)  # factor of the U-Net's pixel-unshuffle, 1 for none
    phases: PhaseStatistics | None = None  # of the training images; None if the U-Net predicts means
    max_train_timestep: int = Field(ge=1, le=1_000_000)  # the largest S that the U-Net was trained for
    defaults: Defaults
    clusterer: dict[str, Any] | None = None  # the argument of `build_classifier`
    encoder: dict[str, Any] | None = None  # the arguments of `Encoder`, also for the detector's f
    unit_features: bool = False  # what the detector's heads see
    score: ScoreDefaults | None = None  # in a bundle with a detector
    # None: at 95 % ID recall
    threshold: Threshold | None = Field(None, exclude_if=lambda threshold: threshold is None)
    config: dict[str, Any] = {}  # of the run
    metrics: dict[str, Any] = {}  # measured in the run
    versions: dict[str, str] = {}
    files: dict[str, str] = {}  # path in the folder -> SHA-256, of every other file

    @property
    def reading(self) -> dict[str, Any]:
        """How its run read pictures, as arguments of `data.load`: size_px, value_range and fit."""
        # a run from before these settings read pictures so, too
        value_range, fit = self.setting("data", "range") or "auto", self.setting("data", "fit") or "crop"
        return {"size_px": self.image_size, "value_range": value_range, "fit": fit}

    def setting(self, *keys: str) -> Any:  # noqa: ANN401
        """One value of the configuration, None if it is not there."""
        found: Any = self.config
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found


def make_manifest(**fields: Any) -> Manifest:  # noqa: ANN401
    """Makes a manifest with the current format and versions; `fields` are the other fields of `Manifest`."""
    versions = {package: metadata.version(package) for package in ("torch", "diffusers", "numpy")}
    versions |= {"sdviz": __version__, "python": platform.python_version()}
    return Manifest(format_version=files.FORMAT_VERSION, versions=versions, **fields)


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """Reads bundle.json and its SHA-256; BundleError if it is missing, wrong or of another format."""
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    if file.is_symlink():
        raise BundleError(f"{file}: leads out of the bundle")
    raw = file.read_bytes()
    tree = parse_json(file, raw)
    version = tree.get("format_version")
    if version != files.FORMAT_VERSION:
        raise BundleError(files.other_format(file, version, "python -m sdviz run CONFIG"))
    try:
        manifest = Manifest.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BundleError(f"{file}: {where}: {first['msg']}") from error
    if len(manifest.class_names) != manifest.n_clusters:
        raise BundleError(f"{file}: {manifest.n_clusters} clusters, {len(manifest.class_names)} names")
    if manifest.phases is not None:
        try:
            manifest.phases.check(manifest.pixel_unshuffle)
        except ValueError as error:
            raise BundleError(f"{file}: {error}") from error
    try:
        Recipe(**manifest.defaults.model_dump()).check(manifest.max_train_timestep)
    except ValueError as error:
        raise BundleError(f"{file}: defaults: {error}") from error
    return manifest, _hash(tree)


def _hash(tree: dict[str, Any]) -> str:
    """SHA-256 of what a bundle is: of bundle.json without how fast it was made and the threshold in use."""
    kept = {key: value for key, value in tree.items() if key not in ("metrics", "threshold")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def check_files(path: Path, manifest: Manifest) -> None:
    """Raises BundleError, which names the file, if the folder does not agree with its manifest."""
    present = {
        name for name in names_in(path) if not any(part.startswith(".") for part in PurePosixPath(name).parts)
    }
    for name in sorted(present | set(manifest.files)):
        if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES:
            raise BundleError(f"{path / name}: may hold a pickle, which is never loaded; use safetensors")
    for name in manifest.files:
        check_file(path, manifest, name)
    foreign = sorted(present - set(manifest.files) - {MANIFEST})
    if foreign:
        raise BundleError(f"{path / foreign[0]} does not belong to the bundle: {MANIFEST} does not list it")
    for needed in (UNET_WEIGHTS, "unet/config.json", "scheduler/scheduler_config.json"):
        if needed not in manifest.files:
            raise BundleError(f"{path / needed} is missing")


def check_file(path: Path, manifest: Manifest, name: str) -> Path:
    """Checks one file by its SHA-256. Raises BundleError: missing, changed, or outside of the bundle."""
    file, inside = path / name, PurePosixPath(name)
    # neither the file nor a folder in its path may be a link
    links = [part for part in (inside, *inside.parents[:-1]) if (path / part).is_symlink()]
    if inside.is_absolute() or ".." in inside.parts or links:
        raise BundleError(f"{file}: leads out of the bundle")
    if not file.is_file():
        raise BundleError(f"{file} is missing")
    if sha256(file) != manifest.files[name]:
        raise BundleError(f"{file} was changed or cut: its SHA-256 is not the one in {MANIFEST}")
    return file


def names_in(path: Path) -> set[str]:
    """The paths, relative to the folder, of all files and links below it."""
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_symlink() or not p.is_dir()}


def check_replaceable(path: Path) -> None:
    """Raises BundleError if `Bundle.save` would overwrite anything but a bundle."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        manifest, _ = read_manifest(path)
    except BundleError as error:
        raise BundleError(f"{path} is there and is not a bundle: not overwritten") from error
    foreign = sorted(names_in(path) - set(manifest.files) - {MANIFEST})
    if foreign:
        raise BundleError(f"{path / foreign[0]} does not belong to the bundle there: not overwritten")


def parse_json(file: Path, raw: bytes) -> dict[str, Any]:
    """Parses a JSON object; BundleError, which names the file, if it is not one."""
    try:
        tree = files.parse_json(raw)
    except ValueError as error:
        raise BundleError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{file}: not a JSON object")
    return tree


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
