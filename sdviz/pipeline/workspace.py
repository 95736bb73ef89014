"""What every stage of a run works with: its folder, its images, its progress."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from .. import data
from ..config.tree import DataConfig, RunConfig
from ..data import DataError, ImageSet
from ..diffusion.schedule import NoiseSchedule
from ..nn.device import leave_group_at_exit, resolve_device
from ..nn.loop import LoopReport

Metrics = dict[str, Any]
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
        eta_sec: Seconds to the stage's end; None where unknown.
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
        folder: The run's folder.
        config: Its configuration.
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
        """ID images that nothing is trained on; None where nothing needs them and the set has none."""
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
        """The test split where there is one, else, for a detector, a share of the images held out by id."""
        d = self.config.data
        images = data.load(d.id, d.split, d.limit, self.config.seed, d.on_error, d.size_px)
        split = test_split(d)
        if split is not None:
            return images, data.load(d.id, split, on_error=d.on_error, size_px=d.size_px)
        if self.config.detector is None:
            return images, None
        # by a hash of the id: a picture that is added later moves no other one
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

    def reporter(self, stage: str, total: int, before: int = 0) -> Callable[[LoopReport], None]:
        """Turns the reports of a loop into progress of a stage, of which it is one part.

        Args:
            stage: The stage's name.
            total: Steps of all its loops.
            before: Steps of the loops before this one.
        """

        def report(r: LoopReport) -> None:
            step = before + r.step
            eta = r.eta_sec
            if r.total_steps > r.step:  # the loops behind it are taken to be as quick
                eta *= (total - step) / (r.total_steps - r.step)
            values = {"loss": r.loss, "images_per_sec": r.images_per_sec}
            self.on_progress(Progress(stage, step, total, step / total, eta, values))

        return report


def test_split(config: DataConfig) -> str | None:
    """The split of ID test images; None where the set has none, and a detector has some held out.

    Raises:
        MissingDataError: No such set on this machine.
    """
    if config.test_split is not None:
        return config.test_split
    present = data.splits(config.id)
    trained_on = config.split or (present[0] if len(present) == 1 else "train")
    return "test" if "test" in present and trained_on != "test" else None


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
    leave_group_at_exit()
    PartialState(cpu=resolve_device(device).type == "cpu")
    return broadcast_object_list([value])[0]


def write_labels(work: Workspace, labels: np.ndarray, confidence: np.ndarray, names: tuple[str, ...]) -> None:
    """Writes pseudo_labels/pseudo_labels.parquet: id, label, confidence; the names are in its metadata."""
    table = pa.table({"id": work.images.ids.tolist(), "label": labels, "confidence": confidence})
    table = table.replace_schema_metadata({"cluster_names": json.dumps(names)})
    partial = work.stage_folder("pseudo_labels") / "pseudo_labels.parquet.partial"
    pq.write_table(table, partial)
    os.replace(partial, labels_path(work))


def labels_path(work: Workspace) -> Path:
    """Where the training labels are."""
    return work.folder / "pseudo_labels" / "pseudo_labels.parquet"


def read_labels(work: Workspace) -> np.ndarray:
    """The training labels y~, int64 (N,), row by row with `work.images`.

    Raises:
        PipelineError: The data set has other images now.
    """
    table = pq.read_table(labels_path(work))
    if table["id"].to_pylist() != work.images.ids.tolist():
        raise PipelineError(f"{work.images.name} has other images now than when {work.folder} was begun")
    return table["label"].to_numpy().astype(np.int64)


def source_labels(work: Workspace) -> np.ndarray:
    """The training labels y~ of `work.sources`, int64 (N,), row by row.

    Raises:
        PipelineError: As `read_labels`.
    """
    return read_labels(work)[work.source_rows]


def read_cluster_names(work: Workspace) -> tuple[str, ...]:
    """A name for each cluster."""
    metadata = pq.read_schema(labels_path(work)).metadata or {}
    return tuple(json.loads(metadata[b"cluster_names"]))


def read_metrics(work: Workspace, stage: str) -> Metrics:
    """What a complete stage measured."""
    return json.loads((work.folder / f"{stage}.done.json").read_text("utf-8"))["metrics"]


def tree_hash(tree: dict[str, Any]) -> str:
    """SHA-256 of a plain tree of keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def absolute_source(name: str) -> str:
    """A data set's name; where it is a path, as in folder:pets, with the path made absolute."""
    for kind in data.OWN_KINDS:
        path = name.removeprefix(kind)
        if path and path != name:
            return kind + os.path.abspath(Path(path).expanduser())
    return name


def write_atomically(path: Path, text: str) -> None:
    """Puts a file in place whole: a reader sees the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)
