"""What every stage of a run works with: its folder, its images, its progress."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from .. import data
from ..config.tree import DataConfig, RunConfig
from ..data import DataError, ImageSet
from ..diffusion.schedule import NoiseSchedule
from ..files import replacing
from ..nn.device import leave_group_at_exit, resolve_device
from ..nn.loop import Execution, LoopReport

Metrics = dict[str, Any]
Settings = dict[str, Any]
Shared = TypeVar("Shared", bool, str)


class PipelineError(ValueError):
    """A run or folder that cannot be used as asked; the message is one line."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        share: 0..1; more than step / total where a time limit ends the stage first.
        eta_sec: Seconds to the stage's end; None if unknown.
        values: What was measured: loss, learning rate, images a second, ...
    """

    stage: str
    step: int
    total: int
    share: float
    eta_sec: float | None
    values: dict[str, float]


@dataclass(frozen=True, eq=False)
class Workspace:
    """What a stage works with.

    Attributes:
        on_progress: Told how far a stage is.
        should_stop: Asked before every step.
    """

    folder: Path
    config: RunConfig
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]

    @property
    def images(self) -> ImageSet:
        """The training images."""
        return self._train_and_test[0]

    @property
    def test(self) -> ImageSet | None:
        """ID images that nothing is trained on; None if nothing needs them and the set has none."""
        return self._train_and_test[1]

    @cached_property
    def source_rows(self) -> np.ndarray:
        """Rows of `images` that outliers are made of and the detector is trained on, int64, ascending."""
        n, limit = len(self.images), self.config.outliers.limit
        if limit is None or limit >= n:
            return np.arange(n)
        return np.sort(data.permutation(n, self.config.seed)[:limit])

    @cached_property
    def sources(self) -> ImageSet:
        """The images of `source_rows`."""
        whole = len(self.source_rows) == len(self.images)
        return self.images if whole else self.images.take(self.source_rows)

    @cached_property
    def _train_and_test(self) -> tuple[ImageSet, ImageSet | None]:
        """The test split if there is one, else, for a detector, a share of the images held out by id."""
        d = self.config.data
        images = data.load(d.id, d.split, d.limit, self.config.seed, d.on_error, d.size_px)
        split = test_split(d)
        if split is not None:
            return images, data.load(d.id, split, on_error=d.on_error, size_px=d.size_px)
        if self.config.detector is None:
            return images, None
        # by a hash of the id, so that a new picture moves no other to the other side
        draws = [
            int.from_bytes(hashlib.sha256(f"holdout {one}".encode()).digest()[:4], "big") for one in images.ids
        ]
        held = np.array(draws) < d.holdout * 2**32
        if not held.any() or held.all():
            raise DataError(
                f"{images.name}: {len(images)} images are too few to hold out {d.holdout:g} of them for testing"
            )
        return images.take(~held), images.take(held)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        return NoiseSchedule.linear(self.config.diffusion.num_train_timesteps)

    def stage_folder(self, stage: str) -> Path:
        """The stage's own folder, made if need be."""
        path = self.folder / stage
        path.mkdir(exist_ok=True)
        return path

    def execution(self, stage: str, state_path: Path | None, total: int, before: int = 0) -> Execution:
        """How one training of a stage runs.

        Args:
            total: Steps of all trainings of the stage.
            before: Steps of those before this one.
        """

        def report(r: LoopReport) -> None:
            step = before + r.step
            eta = r.eta_sec
            if r.total_steps > r.step:  # later loops are taken to be as fast
                eta *= (total - step) / (r.total_steps - r.step)
            values = {"loss": r.loss, "images_per_sec": r.images_per_sec}
            self.on_progress(Progress(stage, step, total, step / total, eta, values))

        return Execution(self.config.device, state_path, report, self.should_stop)


def test_split(config: DataConfig) -> str | None:
    """The split of ID test images; None if the set has none, and a detector's are held out."""
    if config.test_split is not None:
        return config.test_split
    present = data.splits(config.id)
    trained_on = config.split or (present[0] if len(present) == 1 else "train")
    return "test" if "test" in present and trained_on != "test" else None


def is_main_process() -> bool:
    """Whether this is the only process, or the first of an `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


def from_main(value: Shared, device: str) -> Shared:
    """Sends the main process's value to all processes of an `accelerate launch`."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return value
    leave_group_at_exit()
    PartialState(cpu=resolve_device(device).type == "cpu")
    return broadcast_object_list([value])[0]


def read_metrics(work: Workspace, stage: str) -> Metrics:
    """What a complete stage measured."""
    return json.loads((work.folder / f"{stage}.done.json").read_text("utf-8"))["metrics"]


def tree_hash(tree: dict[str, Any]) -> str:
    """SHA-256 of a plain tree of keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def absolute_source(name: str) -> str:
    """A data set's name; a path in it, as in folder:pets, is made absolute."""
    for kind in data.OWN_KINDS:
        path = name.removeprefix(kind)
        if path and path != name:
            return kind + os.path.abspath(Path(path).expanduser())
    return name


def branches(config: RunConfig, *names: str) -> Settings:
    """These branches of the configuration as a plain tree."""
    return config.model_dump(mode="json", include=set(names))


def training_images(config: RunConfig) -> Settings:
    """What of the configuration decides which images a run trains on."""
    tree = branches(config, "data", "seed")
    # without a detector, a set without a test split is trained on whole
    if config.detector is None and _has_no_test_split(config.data):
        tree["data"]["holdout"] = None
    return tree


def _has_no_test_split(config: DataConfig) -> bool:
    try:
        return test_split(config) is None
    except DataError:  # the set is not on this machine: the stages are complete, or will say so themselves
        return False


def write_table(table: pa.Table, path: Path) -> None:
    """Puts a table in place whole, as Parquet."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts arrays in place whole, as safetensors."""
    with replacing(path) as partial:
        save_arrays({key: np.ascontiguousarray(array) for key, array in arrays.items()}, partial)


def write_network(network: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Puts a network's weights in place whole, as safetensors."""
    with replacing(path) as partial:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, partial, metadata)
