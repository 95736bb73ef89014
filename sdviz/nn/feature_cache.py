"""Features of fixed networks, kept on disk: computed once for runs, baselines, controls and pages."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from ..files import replacing
from .batches import encode, in_batches, predict, slices
from .classifier import Classifier, ScanClassifier
from .device import resolve_device
from .encoder import Encoder
from .fastest import cache_folder
from .pixels import channels_first, scale
from .randomness import content_ids
from .weights import EncoderError

# images whose features are one file
SHARD = 500
# when the files are more than this, the ones that were not read for the longest time go
MAX_BYTES = 4 * 2**30
# numbers that frozen blocks give for an image; where there are more, they are computed again each time
MAX_ACTIVATION = 8192


def kept_features(encoder: Encoder, images: np.ndarray, device: str | torch.device = "auto") -> np.ndarray:
    """Features float32 (N,D) of images uint8 (N,H,W,3); read from disk where known.

    An image is known by its bytes, in whatever set it stands, and a network by its weights and the size that
    images are resized to. Where the folder cannot be written, features are computed each time.
    """
    if len(images) == 0:
        return np.zeros((0, encoder.feature_dim), np.float32)
    return _kept(network_hash(encoder), lambda some: fresh_features(encoder, some, device), images)


def fresh_features(encoder: Encoder, images: np.ndarray, device: str | torch.device) -> np.ndarray:
    """As `kept_features`, but not kept, for weights that change; the activations of frozen blocks are."""
    if len(encoder.frozen) == len(encoder.blocks) or not has_small_activations(encoder, images):
        return encode(encoder, images, device)
    activations, parts = kept_activations(encoder, images, device), []
    with torch.no_grad():
        for rows in slices(len(images), 256):
            some = torch.tensor(activations[rows]).to(resolve_device(device))
            parts.append(encoder.features_of(some).float().cpu())
    return torch.cat(parts).numpy()


def has_small_activations(encoder: Encoder, images: np.ndarray) -> bool:
    """Whether blocks are frozen, and what they make of an image of (N,H,W,3) is small enough to be kept."""
    if not encoder.frozen:
        return False
    network = encoder.to("cpu").eval()
    try:
        with torch.no_grad():
            one = network.activations(scale(channels_first(images[:1], torch.device("cpu"))))
            network.features_of(one)
    except EncoderError:
        return False
    return one.numel() <= MAX_ACTIVATION


def kept_activations(encoder: Encoder, images: np.ndarray, device: str | torch.device) -> np.ndarray:
    """What an encoder's frozen blocks make of images, float32 (N,...); read from disk where known."""
    if len(encoder.frozen) == len(encoder.blocks):
        return kept_features(encoder, images, device)
    network = encoder.to(resolve_device(device)).eval()

    def compute(some: np.ndarray) -> np.ndarray:
        return in_batches(lambda pixels: [network.activations(scale(pixels))], some, device, 128)[0]

    return _kept(_hash(encoder.config, *encoder.frozen), compute, images)


def _kept(name: str, compute: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """A row for each image, found by its bytes in any file of the network's folder, or else computed."""
    folder = cache_folder() / "features" / f"{name}-{images.shape[1]}x{images.shape[2]}"
    ids = content_ids(images).tolist()
    wanted = set(ids)
    rows: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if len(rows) == len(wanted):
            break
        rows |= _read(file, wanted)
    missing = {one: i for i, one in enumerate(ids) if one not in rows}
    for some in slices(len(missing), SHARD):
        new = list(missing)[some]
        # in the order in which they are read later: convolutions round by the layout in memory
        made = np.ascontiguousarray(compute(images[[missing[one] for one in new]]))
        rows |= zip(new, made, strict=True)
        if np.isfinite(made).all():  # else for the caller to refuse; another attempt may succeed
            _write(folder, new, made)
    return np.stack([rows[one] for one in ids])


def kept_predictions(
    classifier: Classifier, images: np.ndarray, device: str | torch.device = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """As `batches.predict`; where the classifier has an encoder, from its kept features."""
    if not isinstance(classifier, ScanClassifier):
        return predict(classifier, images, device)
    features = torch.tensor(kept_features(classifier.encoder, images, device))
    with torch.no_grad():
        top = classifier.to("cpu").head(classifier.embed_features(features)).softmax(1).max(1)
    return top.indices.numpy(), top.values.numpy()


def network_hash(encoder: Encoder) -> str:
    """What tells encoders apart: architecture, input size and weights."""
    return _hash(encoder.config, encoder)


def _hash(config: dict[str, Any], *parts: nn.Module) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for part in parts:
        for name, tensor in part.state_dict().items():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(file: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """The rows of a file that are wanted, by image; none of a file that is gone, cut or damaged."""
    try:
        with safe_open(file, "numpy") as kept:
            ids = kept.metadata()["ids"].split()
            if wanted.isdisjoint(ids):
                return {}
            rows = kept.get_tensor("rows")
        os.utime(file)
        return {one: row for one, row in zip(ids, rows, strict=True) if one in wanted}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}


def _write(folder: Path, ids: list[str], rows: np.ndarray) -> None:
    text = " ".join(ids)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors") as partial:
            save_file({"rows": rows}, partial, {"ids": text})
        _make_room(folder.parent)
    except OSError:
        pass


def _make_room(folder: Path) -> None:
    """Removes the files that were read longest ago, until the rest takes at most `MAX_BYTES`."""
    files = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.rglob("*.safetensors")]
    excess = sum(size for _, size, _ in files) - MAX_BYTES
    for _, size, path in sorted(files):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
