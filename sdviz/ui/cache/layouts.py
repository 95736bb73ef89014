"""Layouts that are computed once: by one worker in the background, kept in memory and on disk by content."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import numpy as np

from sdviz.projection import SUFFIX, Layouts, LayoutSettings, compute_layouts, read_layouts, write_layouts
from sdviz.ui.cache.worker import Worker

MAX_BYTES = 256_000_000
MAX_IN_MEMORY = 24
# a first guess of seconds for one point in one t-SNE, until one was measured here
_SEC_PER_POINT = 0.004


class LayoutJob:
    """Layouts that are being computed.

    Attributes:
        key: Of their content.
        expected_sec: How long it should take once it has begun.
    """

    def __init__(self, key: str, expected_sec: float) -> None:
        self.key = key
        self.expected_sec = expected_sec
        self.future: Future[Layouts] | None = None
        self._started: float | None = None
        self._share = 0.0
        self._asked = time.monotonic()

    def begin(self) -> None:
        """Its turn has come."""
        self._started = time.monotonic()

    def report(self, share: float) -> None:
        """Takes down the share done."""
        self._share = share

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self.future is not None and self.future.done()

    @property
    def waiting(self) -> bool:
        """Whether another layout is computed first."""
        return self._started is None

    @property
    def elapsed_sec(self) -> float:
        """Since it began."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def share(self) -> float:
        """0..1: what was reported, else the time gone against the time expected, which never says 1."""
        guess = self.elapsed_sec / max(0.1, self.expected_sec)
        return min(0.99, max(self._share, guess if guess < 0.8 else 1.0 - 0.2 * 0.8 / guess))

    def wait(self, seconds: float) -> bool:
        """Waits at most that long; whether it is done. Keeps a job that has not begun from being given up."""
        self._asked = time.monotonic()
        assert self.future is not None
        try:
            self.future.exception(timeout=seconds)
        except TimeoutError:
            return False
        return True

    @property
    def is_wanted(self) -> bool:
        """Whether somebody has asked for it in the last seconds."""
        return time.monotonic() - self._asked < 10

    def result(self) -> Layouts:
        """The layouts of a job that is done.

        Raises:
            ValueError: As `compute_layouts`.
        """
        assert self.future is not None
        return self.future.result()


class GivenUp(ValueError):
    """Nobody waited for it when its turn came."""


class LayoutStore:
    """Layouts by content. One is computed at a time; whoever asks for the same waits for the same."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Touches nothing yet.

        Args:
            folder: Where files are kept; made when the first is written.
            max_bytes: What they may take together; those not used for longest go first.
        """
        self.folder = folder
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Layouts] = OrderedDict()
        self._jobs: dict[str, LayoutJob] = {}
        self._lock = threading.Lock()
        self._behind = Worker("layouts", in_parts=False)
        self._sec_per_point: dict[tuple[str, int], float] = {}
        self.computed = 0

    def find(self, features: np.ndarray, settings: LayoutSettings) -> Layouts | None:
        """What is in memory or on disk, else None."""
        return self._find(settings.key(features))

    def start(self, features: np.ndarray, settings: LayoutSettings) -> LayoutJob:
        """Has it computed; the job that is at it, if there is one already.

        Args:
            features: float (F,N,D).
            settings: How.
        """
        key = settings.key(features)
        with self._lock:
            job = self._jobs.get(key)
            if job is not None:
                return job
            kind = (settings.method, settings.dims)
            per_point = self._sec_per_point.get(kind, _SEC_PER_POINT if settings.method != "pca" else 1e-4)
            work = features.shape[0] * features.shape[1]
            job = self._jobs[key] = LayoutJob(key, per_point * work)
            job.future = self._behind.submit(self._compute, job, features, settings)
        return job

    def _compute(self, job: LayoutJob, features: np.ndarray, settings: LayoutSettings) -> Layouts:
        try:
            found = self._find(job.key)
            if found is not None:
                return found
            if not job.is_wanted:
                raise GivenUp("nobody waited for this layout")
            job.begin()
            made = compute_layouts(features, settings, job.report)
            self._sec_per_point[settings.method, settings.dims] = job.elapsed_sec / (
                features.shape[0] * features.shape[1]
            )
            self.computed += 1
            self._keep(job.key, made)
            self._write(job.key, made)
            return made
        finally:
            with self._lock:
                self._jobs.pop(job.key, None)

    def _keep(self, key: str, made: Layouts) -> None:
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MAX_IN_MEMORY:
                self._kept.popitem(last=False)

    def _find(self, key: str) -> Layouts | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        path = self.folder / f"{key}{SUFFIX}"
        found = read_layouts(path)
        if found is None:
            return None  # it is computed again
        with suppress(OSError):
            os.utime(path)
        self._keep(key, found)
        return found

    def _write(self, key: str, made: Layouts) -> None:
        """A full or read-only disk costs the file, not the layout."""
        with suppress(OSError):
            write_layouts(self.folder / f"{key}{SUFFIX}", made)
            self._prune()

    def _prune(self) -> None:
        files = sorted(
            ((p.stat().st_mtime, p.stat().st_size, p) for p in self.folder.glob(f"*{SUFFIX}")), reverse=True
        )
        total = 0
        for _, size, path in files:
            total += size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)
