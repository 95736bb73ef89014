"""What all stages of a run share: the `Stage` itself, its workspace, its progress, its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from .. import data
from ..config.tree import DataConfig, RunConfig
from ..data import DataError, ImageSet, roles
from ..diffusion.schedule import NoiseSchedule
from ..files import read_json, replacing
from ..nn.device import leave_group_at_exit, resolve_device
from ..nn.loop import Execution, LoopReport
from ..nn.randomness import content_ids
from ..text import LineError

Metrics = dict[str, Any]
Settings = dict[str, Any]
Shared = TypeVar("Shared", bool, str)


class PipelineError(LineError):
    """A run or folder that cannot be used as asked; the message is one line."""


def read_object(file: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object of a run with at least these keys. Raises PipelineError: it is damaged."""
    try:
        tree = read_json(file)
    except ValueError as error:
        raise PipelineError(f"{file} is damaged: {error}") from error
    if not isinstance(tree, dict) or not tree.keys() >= set(keys):
        raise PipelineError(f"{file} is damaged: it lacks {', '.join(keys)}")
    return tree


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: str
    step: int
    total: int
    share: float  # 0..1; more than step / total where a time limit ends the stage first
    eta_sec: float | None  # seconds to the stage's end; None if unknown
    values: dict[str, float]  # measurements: loss, learning rate, images a second, ...
    training: str = ""  # its name, if a stage may have several


@dataclass(frozen=True, eq=False)
class Workspace:
    """A run as its stages see it."""

    folder: Path
    config: RunConfig
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]  # asked before every step
    metrics: Metrics = field(default_factory=dict)  # of the complete stages; later ones replace earlier ones

    @property
    def images(self) -> ImageSet:
        """The training images."""
        return self._train_and_test[0]

    @property
    def test(self) -> ImageSet | None:
        """ID images that nothing is trained on; None if nothing needs them and the set has none.

        `data.on_overlap` decides about those with the pixels of a training image.
        """
        return self._train_and_test[1] if self.config.data.on_overlap == "keep" else self.unseen_test

    @property
    def unseen_test(self) -> ImageSet | None:
        """The test images without those that have the pixels of a training image."""
        test = self._train_and_test[1]
        return test.take(~self.seen_test_rows) if test is not None and self.seen_test_rows.any() else test

    @cached_property
    def seen_test_rows(self) -> np.ndarray:
        """Which test images have the pixels of a training image: bool (M,)."""
        return np.array([one in self.training_pictures for one in self._contents[1].tolist()], bool)

    @cached_property
    def training_pictures(self) -> frozenset[str]:
        """The content ids of the training images."""
        return frozenset(self._contents[0].tolist())

    @property
    def copies(self) -> int:
        """How many training images, and how many test images, have the pixels of another one of them."""
        return sum(len(ids) - len(set(ids.tolist())) for ids in self._contents)

    @cached_property
    def _contents(self) -> tuple[np.ndarray, np.ndarray]:
        """The content ids of training and test images, str (N,) and (M,)."""
        images, test = self._train_and_test
        return content_ids(images.images), content_ids(test.images if test is not None else images.images[:0])

    @cached_property
    def source_rows(self) -> np.ndarray:
        """Rows of `images` that outliers are made from and the detector trains on: int64, ascending."""
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
        """Training and test images; without a test split, a detector holds out a share of the images."""
        d = self.config.data
        images = data.load(d.id, d.split, d.limit, self.config.seed, d.on_error, **d.reading)
        split = test_split(d)
        if split is not None:
            return images, data.load(d.id, split, on_error=d.on_error, **d.reading)
        if self.config.detector is None:
            return images, None
        held = held_out(content_ids(images.images), d.holdout)
        if not held.any():
            raise DataError(
                f"{images.name}: all {len(images)} images are equal: none can be held out for testing"
            )
        return images.take(~held), images.take(held)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule."""
        return NoiseSchedule.linear(self.config.diffusion.num_train_timesteps)

    def stage_folder(self, stage: str) -> Path:
        """The stage's own folder; made if it does not exist."""
        path = self.folder / stage
        path.mkdir(exist_ok=True)
        return path

    def execution(
        self, stage: str, state_path: Path | None, total: int, before: int = 0, training: str = ""
    ) -> Execution:
        """How to run one training of a stage that has `total` steps, `before` of them in earlier trainings.

        `training` is its name, if the stage may have several: each has its own loss.
        """

        def report(r: LoopReport) -> None:
            step = before + r.step
            eta = r.eta_sec
            if r.total_steps > r.step:  # assumes that later trainings are as fast
                eta *= (total - step) / (r.total_steps - r.step)
            values = {"loss": r.loss, "images_per_sec": r.images_per_sec}
            self.on_progress(Progress(stage, step, total, step / total, eta, values, training))

        return Execution(self.config.device, state_path, report, self.should_stop)


@dataclass(frozen=True)
class Stage:
    """One stage of a run. The module named after it has one, called STAGE."""

    make: Callable[[Workspace], Metrics | None]  # does the work; returns measurements, None if stopped
    depends_on: Callable[[RunConfig], Settings]  # the settings that decide its result, as a plain tree
    title: str  # its name on pages
    is_wanted: Callable[[RunConfig], bool] = lambda config: True  # whether a run with this configuration has it
    is_shared: bool = False  # under `accelerate launch` all processes work at it, else the main one alone
    reads_sets: bool = False  # whether it reads image sets besides the training images
    memory_settings: tuple[str, ...] = ()  # what to lower if memory runs out


def test_split(config: DataConfig) -> str | None:
    """The split with the ID test images; None if the set has none."""
    return config.test_split or roles.test_split(config.id, config.split)


def held_out(contents: np.ndarray, share: float) -> np.ndarray:
    """Draws about this share of the pictures: bool (N,), copies of a picture all True or all False.

    Whether a picture is drawn depends on its pixels alone, so that no name, order or new picture moves another
    one; except that of two or more pictures at least one is drawn, and one is not.

    Args:
        contents: str (N,), of `content_ids`.
    """
    pictures = sorted(set(contents.tolist()))  # hashes are hex: their order is that of their numbers
    n_drawn = sum(int(one[:8], 16) < share * 2**32 for one in pictures)
    drawn = set(pictures[: min(max(n_drawn, 1), len(pictures) - 1)])
    return np.array([one in drawn for one in contents.tolist()])


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


def has_detector(config: RunConfig) -> bool:
    """Whether the run trains a detector."""
    return config.detector is not None


def branches(config: RunConfig, *names: str) -> Settings:
    """The named branches of the configuration as a plain tree."""
    return config.model_dump(mode="json", include=set(names))


def training_images(config: RunConfig) -> Settings:
    """The settings that decide which images a run trains on."""
    tree = branches(config, "data", "seed")
    del tree["data"]["on_overlap"]
    try:
        # without a detector and a test split, all images are trained on
        if config.detector is None and test_split(config.data) is None:
            tree["data"]["holdout"] = None
    except DataError:  # the set is not on this machine: the stages are complete, or will say so themselves
        pass
    return tree


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as safetensors, whole or not at all."""
    with replacing(path) as partial:
        save_arrays({key: np.ascontiguousarray(array) for key, array in arrays.items()}, partial)


def write_network(network: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a network's weights as safetensors, whole or not at all."""
    with replacing(path) as partial:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, partial, metadata)
