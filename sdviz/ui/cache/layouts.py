"""Computes layouts in the background, once, and keeps them in memory and on disk."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdviz.projection import SUFFIX, Layouts, LayoutSettings, compute_layouts, read_layouts, write_layouts
from sdviz.ui.cache.background import GivenUp, Task, start
from sdviz.ui.cache.kept import KEPT, Store
from sdviz.ui.guests import refusal

MAX_BYTES = 256_000_000
# seconds for a point of t-SNE or UMAP, a guess until one is measured
_SEC_PER_POINT = 0.004


@dataclass(frozen=True)
class LayoutJob:
    """Layouts that are being computed."""

    # raises ValueError as `compute_layouts`, and GivenUp if nobody waited
    task: Task[Layouts]
    expected_sec: float  # how long it should take once it has begun

    @property
    def share(self) -> float:
        """The share done, below 1: as reported, or by the elapsed time if that is more."""
        guess = self.task.elapsed_sec / max(0.1, self.expected_sec)
        return min(0.99, max(self.task.share, guess if guess < 0.8 else 1.0 - 0.2 * 0.8 / guess))


class LayoutStore:
    """Layouts by features and settings. All who ask for the same layouts share one job."""

    def __init__(self, folder: Path) -> None:
        """Keeps at most `MAX_BYTES` in `folder`; the least recently used files are deleted first."""
        self.folder = folder
        self._kept: Store[Layouts] = Store(KEPT["layouts"].most)
        self._jobs: dict[str, LayoutJob] = {}
        self._lock = threading.Lock()
        self._sec_per_point: dict[tuple[str, int], float] = {}
        self.computed = 0

    def find(self, features: np.ndarray, settings: LayoutSettings) -> Layouts | None:
        """Finds layouts in memory or on disk, None if they are in neither."""
        return self._find(settings.key(features))

    def start(self, features: np.ndarray, settings: LayoutSettings) -> LayoutJob:
        """Starts a job for layouts of features, float (F,N,D), or finds the one that runs.

        What is made for a visit that may change nothing stays in memory.
        """
        to_disk = not refusal()
        key, n_points = settings.key(features), features.shape[0] * features.shape[1]
        kind = (settings.method, settings.dims)

        def compute(task: Task[Layouts]) -> Layouts:
            try:
                found = self._find(key)
                if found is not None:
                    return found
                if not task.is_wanted:
                    raise GivenUp("nobody waited for this layout")
                started = time.monotonic()
                made = compute_layouts(features, settings, task.report)
                self._sec_per_point[kind] = (time.monotonic() - started) / n_points
                self.computed += 1
                self._kept.put(key, made)
                if to_disk:
                    self._write(key, made)
                return made
            finally:
                with self._lock:
                    self._jobs.pop(key, None)

        with self._lock:
            if key not in self._jobs:
                per_point = self._sec_per_point.get(kind, _SEC_PER_POINT if settings.method != "pca" else 1e-4)
                self._jobs[key] = LayoutJob(start("layouts", compute), per_point * n_points)
            return self._jobs[key]

    def _find(self, key: str) -> Layouts | None:
        found = self._kept.get(key)
        if found is not None:
            return found
        path = self.folder / f"{key}{SUFFIX}"
        found = read_layouts(path)
        if found is None:
            return None
        with suppress(OSError):
            os.utime(path)
        return self._kept.put(key, found)

    def _write(self, key: str, made: Layouts) -> None:
        """Writes the file and deletes the oldest ones. A full or read-only disk is ignored."""
        with suppress(OSError):
            write_layouts(self.folder / f"{key}{SUFFIX}", made)
            total = 0
            for path in sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime, reverse=True):
                total += path.stat().st_size
                if total > MAX_BYTES:
                    path.unlink(missing_ok=True)
