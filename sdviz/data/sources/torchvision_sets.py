"""CIFAR-10, CIFAR-100 and SVHN in torchvision's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...text import one_line
from ..decode import resized
from ..imageset import DataError, ImageSet
from ..source import Choose, Source, data_root, row_ids
from ..stack import Reading

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10, SVHN

_CIFAR10 = tuple(
    f"cifar-10-batches-py/{file}"
    for file in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6)))
)
_CIFAR100 = tuple(f"cifar-100-python/{file}" for file in ("meta", "train", "test"))
# torchvision opens a CIFAR split only if the files of both splits are there
_FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar10": {"train": _CIFAR10, "test": _CIFAR10},
    "cifar100": {"train": _CIFAR100, "test": _CIFAR100},
    "svhn": {split: (f"{split}_32x32.mat",) for split in ("train", "test", "extra")},
}


def _checked(name: str, split: str) -> CIFAR10 | SVHN:
    root = data_root()
    try:
        return _open(name, split, root, download=False)
    except RuntimeError as error:
        raise DataError(
            f"{name}: its files under {root} are damaged; delete them and run `python -m sdviz download {name}`"
        ) from error


def _open(name: str, split: str, root: Path, download: bool) -> CIFAR10 | SVHN:
    from torchvision import datasets  # slow to import, and most callers have Parquet or the drawn sets

    if name == "svhn":
        return datasets.SVHN(str(root), split=split, download=download)
    make = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    return make(str(root), train=split == "train", download=download)


class TorchvisionSets(Source):
    """Sets under the data root that torchvision downloaded and checks by their MD5.

    An id is `<name>/<split>/tv-<index>`. A Parquet file of the same set may have another order, so the two
    share no ids.
    """

    order = 3
    downloads: Mapping[str, int] = {"cifar10": 170_498_071, "cifar100": 169_001_437, "svhn": 246_316_179}
    shades: Mapping[str, int] = dict.fromkeys(downloads, 0)

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in _FILES if self.splits(name))

    def splits(self, name: str) -> tuple[str, ...]:
        root = data_root()
        return tuple(
            split
            for split, files in _FILES.get(name, {}).items()
            if all((root / file).is_file() for file in files)
        )

    def all_splits(self, name: str) -> tuple[str, ...]:
        return tuple(_FILES[name])

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        dataset = _checked(name, split)
        if name == "svhn":
            data, targets = dataset.data.transpose(0, 2, 3, 1), dataset.labels
            class_names = tuple("0123456789")
        else:
            data, targets = dataset.data, dataset.targets
            class_names = tuple(dataset.classes)
        rows = choose(len(data))
        images = resized(np.ascontiguousarray(data[rows]), reading.size_px)
        ids = row_ids(self.id_prefix(name, split), rows)
        return ImageSet(name, split, images, np.asarray(targets, np.int64)[rows], ids, class_names, 0.0)

    def count(self, name: str, split: str) -> int:
        return len(_checked(name, split).data)

    def id_prefix(self, name: str, split: str) -> str:
        return f"{name}/{split}/tv-"

    def download(self, name: str, root: Path) -> None:
        # the splits train and test; existing files are kept
        try:
            root.mkdir(parents=True, exist_ok=True)
            for split in ("train", "test"):
                _open(name, split, root, download=True)
        except (OSError, RuntimeError) as error:
            reason = one_line(error) or type(error).__name__
            raise DataError(f"{name} could not be downloaded to {root}: {reason}") from error


SOURCE = TorchvisionSets()
