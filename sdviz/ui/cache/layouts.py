"""Layouts that are computed once, in the background, and kept by their content in memory and on disk."""

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

MAX_BYTES = 256_000_000
# a first guess of seconds for one point in one t-SNE, until one was measured here
_SEC_PER_POINT = 0.004


@dataclass(frozen=True)
class LayoutJob:
    """Layouts that are being computed."""

    # computes them; raises ValueError as `compute_layouts`, and GivenUp where nobody waited
    task: Task[Layouts]
    expected_sec: float  # how long it should take once it has begun

    @property
    def share(self) -> float:
        """Share done, 0..1: as reported, else estimated from the elapsed time, always below 1."""
        guess = self.task.elapsed_sec / max(0.1, self.expected_sec)
        return min(0.99, max(self.task.share, guess if guess < 0.8 else 1.0 - 0.2 * 0.8 / guess))


class LayoutStore:
    """Layouts by content. Who asks for layouts that are being computed waits for the same job."""

    def __init__(self, folder: Path) -> None:
        """Files in `folder` take at most `MAX_BYTES`; those not used for longest go first."""
        self.folder = folder
        self._kept: Store[Layouts] = Store(KEPT["layouts"].most)
        self._jobs: dict[str, LayoutJob] = {}
        self._lock = threading.Lock()
        self._sec_per_point: dict[tuple[str, int], float] = {}
        self.computed = 0

    def find(self, features: np.ndarray, settings: LayoutSettings) -> Layouts | None:
        """Finds layouts in memory or on disk; None where they are in neither."""
        return self._find(settings.key(features))

    def start(self, features: np.ndarray, settings: LayoutSettings) -> LayoutJob:
        """Starts computing layouts, or finds the job that does. `features`: float (F,N,D)."""
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
        """Writes the file and deletes the oldest ones; ignores a full or read-only disk."""
        with suppress(OSError):
            write_layouts(self.folder / f"{key}{SUFFIX}", made)
            files = sorted(
                ((p.stat().st_mtime, p.stat().st_size, p) for p in self.folder.glob(f"*{SUFFIX}")), reverse=True
            )
            total = 0
            for _, size, path in files:
                total += size
                if total > MAX_BYTES:
                    path.unlink(missing_ok=True)
