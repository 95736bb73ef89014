"""All that the app keeps between reruns and between people: models, image sets, outliers, one lock."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import streamlit as st

from sdviz import data
from sdviz.bundle import MANIFEST, Bundle
from sdviz.config import RunConfig
from sdviz.data import ImageSet
from sdviz.nn.pixels import to_images
from sdviz.outliers import OutlierRequest, Recipe
from sdviz.ui.cache.memory import forgets, in_use
from sdviz.ui.cache.worker import ENDING, Worker

# The device does one thing at a time, whoever asks.
DEVICE_LOCK = threading.Lock()
MAX_OUTLIERS = 20_000
# Doubled by guidance, as many rows as the network takes at once
IMAGES_AT_ONCE = 64
# so long after a page is drawn nobody has moved on yet, and the browser has drawn it, too
_LOOK_AHEAD_AFTER_SEC = 0.4


@st.cache_resource(max_entries=2, show_spinner="Opening the bundle ...")
def _open_bundle(path: str, changed_ns: int, device: str) -> Bundle:
    return Bundle.load(path, device, lazy=True)


def open_bundle(path: Path, device: str = "auto") -> Bundle:
    """The bundle in that folder, its networks left for later; opened again when its bundle.json changes.

    Raises:
        BundleError: As `Bundle.load`.
    """
    file = path / MANIFEST
    bundle = _open_bundle(str(path), file.stat().st_mtime_ns if file.exists() else 0, device)
    in_use(bundle.hash)
    return bundle


@st.cache_data(max_entries=8, show_spinner="Reading the images ...")
def _load_images(name: str, split: str | None, limit: int | None, root: str) -> ImageSet:
    return data.load(name, split, limit=limit)


def load_images(name: str, split: str | None, limit: int | None = None) -> ImageSet:
    """An image set, kept for everybody.

    Raises:
        DataError: As `data.load`.
    """
    return _load_images(name, split, limit, str(data.data_root()))


def sets_here() -> str:
    """Which sets this machine has: what is kept of them under another answer is out of date."""
    return " ".join((str(data.data_root()), *data.names()))


@dataclass(frozen=True)
class Edit:
    """One picture to make: this source, under this condition, by this recipe."""

    image_id: str
    image: np.ndarray
    label: int
    target: int
    recipe: Recipe


@dataclass(frozen=True)
class Edited:
    """What came of an `Edit`.

    Attributes:
        outlier: uint8 (H,W,3).
        noised: uint8 (H,W,3), x_S.
        trajectory: uint8 (K,H,W,3), the x_0 prediction of each step; None where it was not asked for.
        network_calls: Forward passes of the batch that it was in.
        evaluations: How often the network saw this image.
        batch_sec: Time of that batch.
        batch_images: How many images were in it.
    """

    outlier: np.ndarray
    noised: np.ndarray
    trajectory: np.ndarray | None
    network_calls: int
    evaluations: int
    batch_sec: float
    batch_images: int


# (key in the store, what to make) of one recipe
_Batch: TypeAlias = list[tuple[tuple[object, ...], Edit]]


class OutlierStore:
    """Outliers by everything that fixes them; the oldest go first. Safe from several sessions."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Edited] = OrderedDict()
        self._lock = threading.Lock()
        self.misses = 0

    def get(self, key: tuple[object, ...]) -> Edited | None:
        """What is kept under the key, now the youngest."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: tuple[object, ...], made: Edited, ahead: bool = False) -> None:
        """Keeps it; what was made ahead of anybody's asking is no miss."""
        with self._lock:
            self.misses += not ahead
            self._kept[key] = made
            while len(self._kept) > MAX_OUTLIERS:
                self._kept.popitem(last=False)

    def forget(self, bundle_hash: str) -> None:
        """Lets go of what that bundle made."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == bundle_hash]:
                del self._kept[key]


@st.cache_resource(show_spinner=False)
def outlier_store() -> OutlierStore:
    """The one store of this server."""
    return OutlierStore()


@forgets
def _forget(bundle_hash: str) -> None:
    outlier_store().forget(bundle_hash)


class Overtaken(Exception):
    """What was being made ahead gave way to what somebody asked for."""


class _Asked:
    """How often outliers were asked for, and whether some are being made that nobody asked for."""

    def __init__(self) -> None:
        self.times = 0
        self.is_ahead = False


_ASKED = _Asked()


def make_edits(
    bundle: Bundle,
    edits: list[Edit],
    on_progress: Callable[[float], None] | None = None,
    trajectory: bool = False,
) -> list[Edited]:
    """Makes what is not kept yet, several recipes in one batch.

    Args:
        bundle: Makes them.
        edits: What to make.
        on_progress: Called with 0..1 after each network call.
        trajectory: Keep the x_0 prediction of each step, too.

    Returns:
        In the order of `edits`.
    """
    _ASKED.times += 1
    return _make(bundle, edits, on_progress, trajectory)


def look_ahead(bundle: Bundle, guesses: list[list[Edit]]) -> None:
    """Makes what a person is likely to ask for next, behind the page, until anybody asks for anything.

    Args:
        bundle: Makes them.
        guesses: The likeliest first.
    """
    _ahead().submit(_look_ahead, bundle, guesses, _ASKED.times)


def is_looking_ahead() -> bool:
    """Whether the device is busy with what nobody has asked for: that gives way within one network call."""
    return _ASKED.is_ahead


@st.cache_resource(show_spinner=False)
def _ahead() -> Worker:
    return Worker("look-ahead")


def _look_ahead(bundle: Bundle, guesses: list[list[Edit]], times: int) -> None:
    def give_way(_: float = 0.0) -> None:
        if times != _ASKED.times or ENDING.is_set():
            raise Overtaken

    with suppress(Overtaken):
        give_way()
        ENDING.wait(_LOOK_AHEAD_AFTER_SEC)
        for edits in guesses:
            give_way()
            _ASKED.is_ahead = True
            try:
                _make(bundle, edits, give_way, trajectory=False, ahead=True)
            finally:
                _ASKED.is_ahead = False


def _make(
    bundle: Bundle,
    edits: list[Edit],
    on_progress: Callable[[float], None] | None,
    trajectory: bool,
    ahead: bool = False,
) -> list[Edited]:
    store = outlier_store()
    keys: list[tuple[object, ...]] = [
        (bundle.hash, e.image_id, e.image.tobytes(), e.label, e.target, e.recipe, trajectory) for e in edits
    ]
    found = {key: store.get(key) for key in keys}
    missing = OrderedDict((k, e) for k, e in zip(keys, edits, strict=True) if found[k] is None)
    batches: OrderedDict[Recipe, _Batch] = OrderedDict()
    for key, edit in missing.items():
        batches.setdefault(edit.recipe, []).append((key, edit))
    groups = _groups(batches)
    steps_total = sum(min(e.recipe.num_inference_steps, e.recipe.start_timestep) for e in missing.values())
    steps_done = 0
    for group in groups:
        x_0s: list[list[np.ndarray]] = [[] for _ in group]
        told = -1

        def on_step(
            part: int,
            step: int,
            x_t: object,
            x_0: object,
            group: list[_Batch] = group,
            x_0s: list[list[np.ndarray]] = x_0s,
        ) -> None:
            nonlocal steps_done, told
            steps_done += len(group[part])
            if trajectory:
                x_0s[part].append(to_images(x_0))  # type: ignore[arg-type]
            # once a step for all of the group, and not for each of its parts
            if on_progress is not None and step > told:
                told = step
                on_progress(min(1.0, steps_done / max(1, steps_total)))

        with DEVICE_LOCK:
            made = bundle.generate_together([_request(pairs) for pairs in group], on_step)
        n_images = sum(map(len, group))
        for pairs, batch, steps in zip(group, made, x_0s, strict=True):
            for row, (key, _) in enumerate(pairs):
                edited = Edited(
                    batch.outliers[row],
                    batch.noised[row],
                    np.stack([x[row] for x in steps]) if steps else None,
                    batch.network_calls,
                    batch.evaluations,
                    batch.elapsed_sec,
                    n_images,
                )
                store.put(key, edited, ahead)
                found[key] = edited
    return [found[key] for key in keys]  # type: ignore[misc]


def _groups(batches: OrderedDict[Recipe, _Batch]) -> list[list[_Batch]]:
    """Batches of one recipe each, put together until a group has its fill of images."""
    groups: list[list[_Batch]] = []
    for batch in batches.values():
        for first in range(0, len(batch), IMAGES_AT_ONCE):
            part = batch[first : first + IMAGES_AT_ONCE]
            if not groups or sum(map(len, groups[-1])) + len(part) > IMAGES_AT_ONCE:
                groups.append([])
            groups[-1].append(part)
    return groups


def _request(pairs: _Batch) -> OutlierRequest:
    edits = [edit for _, edit in pairs]
    return OutlierRequest(
        np.stack([e.image for e in edits]),
        np.array([e.label for e in edits]),
        np.array([e.target for e in edits]),
        np.array([e.image_id for e in edits]),
        edits[0].recipe,
    )


@st.cache_resource(show_spinner=False)
def _estimator() -> Worker:
    return Worker("estimates")


@st.cache_resource(max_entries=64, show_spinner=False)
def _estimate(config: str, root: str) -> Future[list[tuple[str, float, int]]]:
    return _estimator().submit(_time_images, config)


def _time_images(config: str) -> list[tuple[str, float, int]]:
    from sdviz.pipeline import estimate  # brings accelerate and more, seconds that only this page waits for

    with DEVICE_LOCK:
        parts = estimate(RunConfig.model_validate_json(config))
    return [(part.stage, part.seconds, part.bytes) for part in parts]


def start_estimate(config: RunConfig) -> Future[list[tuple[str, float, int]]]:
    """(stage, seconds, bytes on the disk) of a run that has not begun, by a few images timed on its device.

    Returns:
        What is being timed behind the page, or was before. It raises DataError, EncoderError or ValueError
        where the run itself would stop at something.
    """
    key = (config.model_dump_json(), str(data.data_root()))
    found = _estimate(*key)
    if found.done() and found.exception() is not None:
        # what was missing may be there by now
        _estimate.clear(*key)
        found = _estimate(*key)
    return found
