"""Loads the networks and features of a bundle from its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch import nn

from ..diffusion.schedule import NoiseSchedule
from ..nn.classifier import Classifier, build_classifier
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from ..nn.phase_means import PhaseMeans
from ..table_files import text_array
from .manifest import MANIFEST, UNET_WEIGHTS, BundleError, Manifest, first_line, parse_json

if TYPE_CHECKING:
    from ..detection.score import SDScore
    from ..nn.unet import NoisePredictor

Net = TypeVar("Net", bound=nn.Module)
# what pyarrow, safetensors and numpy raise at files of another form
_FOREIGN = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, OverflowError),
    *(pa.ArrowException, SafetensorError),
)


def load_noise_predictor(path: Path, manifest: Manifest) -> NoisePredictor:
    """Loads the U-Net, float32 on the CPU."""
    from diffusers import UNet2DModel  # slow to import, and used only to make outliers

    from ..nn.unet import NoisePredictor

    folder, weights = path / "unet", path / UNET_WEIGHTS
    config = parse_json(folder / "config.json", (folder / "config.json").read_bytes())
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
        # low_cpu_mem_usage patches torch.nn.Module for the whole process: a network that another thread makes
        # at the same time would have no weights
        unet, info = UNet2DModel.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,
        )
    except Exception as error:  # a foreign configuration can raise any error
        raise BundleError(f"{weights}: not this bundle's U-Net ({first_line(error)})") from error
    # diffusers accepts missing weights and leaves them untrained
    if info["missing_keys"] or info["unexpected_keys"]:
        key = (info["missing_keys"] or info["unexpected_keys"])[0]
        raise BundleError(f"{weights}: not this bundle's U-Net ({key} is missing or unexpected)")
    phases = None
    if manifest.phases is not None:
        n_pixels = (manifest.image_size // factor) ** 2
        phases = PhaseMeans(manifest.phases, load_schedule(path, manifest).alphas_cumprod, n_pixels)
    return NoisePredictor(unet.eval().requires_grad_(False), factor, phases)


def load_schedule(path: Path, manifest: Manifest) -> NoiseSchedule:
    """Loads the noise schedule."""
    file = path / "scheduler" / "scheduler_config.json"
    config = parse_json(file, file.read_bytes())
    if config.get("beta_schedule") != "linear" or config.get("prediction_type", "epsilon") != "epsilon":
        raise BundleError(f"{file}: only a linear schedule with epsilon prediction is supported")
    try:
        schedule = NoiseSchedule.linear(config["num_train_timesteps"], config["beta_start"], config["beta_end"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BundleError(f"{file}: not a noise schedule ({first_line(error)})") from error
    if len(schedule) < manifest.max_train_timestep:
        raise BundleError(
            f"{file}: {len(schedule)} timesteps, but {MANIFEST} says max_train_timestep"
            f" {manifest.max_train_timestep}"
        )
    return schedule


def load_clusterer(path: Path, manifest: Manifest) -> Classifier:
    """Loads the network that gives any image a cluster."""
    assert manifest.clusterer is not None
    n_classes = manifest.clusterer.get("n_classes")
    if n_classes != manifest.n_clusters:
        raise BundleError(
            f"{path / 'clusterer.safetensors'}: {n_classes} classes, but {MANIFEST} says {manifest.n_clusters}"
        )
    config = manifest.clusterer
    return _with_weights(path, "clusterer", manifest, lambda: build_classifier(config))


def load_encoder(path: Path, manifest: Manifest) -> Encoder | None:
    """Loads the network before detector training; None if the bundle has none."""
    config = manifest.encoder
    if config is None or "encoder.safetensors" not in manifest.files:
        return None
    return _with_weights(path, "encoder", manifest, lambda: Encoder(**config))


def load_detector(path: Path, manifest: Manifest) -> Detector | None:
    """Loads f and its three heads; None if the bundle has none."""
    config = manifest.encoder
    if config is None or "detector.safetensors" not in manifest.files:
        return None
    n, unit = manifest.n_clusters, manifest.unit_features
    return _with_weights(path, "detector", manifest, lambda: Detector(Encoder(**config), n, unit_features=unit))


def _with_weights(path: Path, name: str, manifest: Manifest, build: Callable[[], Net]) -> Net:
    file = path / f"{name}.safetensors"
    if file.name not in manifest.files:
        raise BundleError(f"{file} is missing")
    try:
        network = build()
        network.load_state_dict(load_file(file))
    except (TypeError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        raise BundleError(f"{file}: not this bundle's {name} ({first_line(error)})") from error
    return network.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Banks:
    """The reference features of a bundle."""

    id_features: np.ndarray  # float32 (N,D)
    id_labels: np.ndarray  # int64 (N,), y~
    id_ids: np.ndarray  # str (N,)
    outlier_features: np.ndarray  # float32 (M,D), in the order of outliers.parquet
    outlier_labels: np.ndarray  # int64 (M,), y~ of the sources
    outlier_ids: np.ndarray  # str (M,)
    outlier_sources: np.ndarray | None  # str (M,), ids of the images that the outliers were made from

    def fit(self, score: SDScore, device: str | torch.device) -> SDScore:
        """Prepares a score with these features: no image, and no outlier of its own, counts for itself."""
        return score.fit(
            self.id_features, self.outlier_features, self.id_ids, self.outlier_ids, self.outlier_sources, device
        )


def read_banks(parts: Mapping[str, Path]) -> Banks:
    """Reads the banks of a bundle. Raises ValueError: it has none; BundleError: their files do not fit."""
    missing = [name for name in ("features.safetensors", "features.parquet") if name not in parts]
    if missing:
        raise ValueError(f"this bundle has no {missing[0]}: it scores nothing")
    with reading(parts["features.safetensors"]) as file:
        arrays = load_arrays(file)
        table = pq.read_table(parts["features.parquet"])
        role, ids, row = texts(table["role"]), texts(table["id"]), numbers(table["row"], np.int64)
        for one in ("id", "outlier"):
            if not np.array_equal(row[role == one], np.arange((role == one).sum())):
                raise ValueError(f"the rows of role {one} are not in order")
        banks = Banks(
            arrays["id_features"].astype(np.float32),
            arrays["id_labels"].astype(np.int64),
            ids[role == "id"],
            arrays["outlier_features"].astype(np.float32),
            arrays["outlier_labels"].astype(np.int64),
            ids[role == "outlier"],
            _outlier_sources(parts, ids[role == "outlier"]),
        )
        for features, labels, names in (
            (banks.id_features, banks.id_labels, banks.id_ids),
            (banks.outlier_features, banks.outlier_labels, banks.outlier_ids),
        ):
            if features.ndim != 2 or not len(features) == len(labels) == len(names):
                raise ValueError(f"{features.shape} features, {len(labels)} labels, {len(names)} ids")
            if not np.isfinite(features).all():
                raise ValueError("a feature is not a finite number")
    return banks


@contextmanager
def reading(file: Path) -> Iterator[Path]:
    """Yields a table or features of a bundle to read; what libraries raise at others becomes a BundleError."""
    try:
        yield file
    except BundleError:
        raise
    except _FOREIGN as error:
        raise BundleError(f"{file} cannot be read: {str(error) or type(error).__name__}") from error


def texts(column: pa.ChunkedArray) -> np.ndarray:
    """A column as str (N,). Raises ValueError: it has gaps or other values, or as `text_array`."""
    if column.null_count or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"text is expected, not {column.type} with {column.null_count} gaps")
    return text_array(column.to_pylist())


def numbers(column: pa.ChunkedArray, kind: type[np.generic]) -> np.ndarray:
    """A column as numbers of that kind, (N,). Raises ValueError: gaps, other values, NaN or infinite ones."""
    if column.null_count:
        raise ValueError(f"{column.null_count} numbers are missing")
    found = column.cast(pa.from_numpy_dtype(kind)).to_numpy()
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError("a number is not finite")
    return found


def _outlier_sources(parts: Mapping[str, Path], outlier_ids: np.ndarray) -> np.ndarray | None:
    if "outliers.parquet" not in parts:
        return None
    table = pq.read_table(parts["outliers.parquet"], columns=["id", "source_id"])
    source_of = dict(zip(table["id"].to_pylist(), table["source_id"].to_pylist(), strict=True))
    return np.array([source_of.get(one, "") for one in outlier_ids.tolist()], str)
