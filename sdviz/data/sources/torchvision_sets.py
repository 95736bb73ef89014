"""CIFAR-10, CIFAR-100 and SVHN as torchvision keeps them on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..decode import to_square
from ..imageset import DataError, ImageSet, chosen_rows

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10, SVHN

_CIFAR10 = tuple(
    f"cifar-10-batches-py/{file}"
    for file in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6)))
)
_CIFAR100 = tuple(f"cifar-100-python/{file}" for file in ("meta", "train", "test"))
# torchvision opens a CIFAR split only where the files of both are complete
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": _CIFAR10, "test": _CIFAR10},
    "cifar100": {"train": _CIFAR100, "test": _CIFAR100},
    "svhn": {split: (f"{split}_32x32.mat",) for split in ("train", "test", "extra")},
}
NAMES = tuple(_FILES)
_SIZE_PX = 32


def all_splits(name: str) -> tuple[str, ...]:
    """The splits that a set has wherever it is complete."""
    return tuple(_FILES[name])


def present_splits(name: str, root: Path) -> tuple[str, ...]:
    """The splits whose files lie under `root`."""
    return tuple(
        split for split, files in _FILES[name].items() if all((root / file).is_file() for file in files)
    )


def load(name: str, split: str, root: Path, limit: int | None, seed: int, size_px: int) -> ImageSet:
    """Reads a split through torchvision, which checks the files' MD5 first.

    Ids are `<name>/<split>/tv-<index>`: torchvision's order is the original one, while a Parquet file of
    the same set may be shuffled, so the two must not share ids.

    Raises:
        DataError: A damaged file.
    """
    try:
        dataset = _open(name, split, root, download=False)
    except RuntimeError as error:
        raise DataError(
            f"{name}: its files under {root} are damaged; delete them and run `python -m sdviz download {name}`"
        ) from error
    if name == "svhn":
        data, targets = dataset.data.transpose(0, 2, 3, 1), dataset.labels
        class_names = tuple("0123456789")
    else:
        data, targets = dataset.data, dataset.targets
        class_names = tuple(dataset.classes)
    rows = chosen_rows(len(data), limit, seed)
    images = np.ascontiguousarray(data[rows])
    if size_px != _SIZE_PX:
        images = np.stack([to_square(Image.fromarray(image), size_px) for image in images])
    ids = np.array([f"{name}/{split}/tv-{row:05d}" for row in rows.tolist()], dtype=str)
    return ImageSet(name, split, images, np.asarray(targets, np.int64)[rows], ids, class_names, 0.0)


def download(name: str, root: Path) -> None:
    """Fetches the train and test splits into `root`; what is there already is kept.

    Raises:
        DataError: No network, no room, or a file that is not what it should be.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            _open(name, split, root, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} could not be downloaded to {root}: {reason}") from error


def _open(name: str, split: str, root: Path, download: bool) -> CIFAR10 | SVHN:
    from torchvision import datasets  # slow to import, and most callers have Parquet or the drawn sets

    if name == "svhn":
        return datasets.SVHN(str(root), split=split, download=download)
    make = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    return make(str(root), train=split == "train", download=download)
