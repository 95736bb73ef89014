"""Fetching a data set behind the pages: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

import streamlit as st

from sdviz import data
from sdviz.data import DataError, torchvision_sets
from sdviz.ui.cache.worker import Worker
from sdviz.ui.read_only import is_read_only

# of the archives that torchvision fetches
_BYTES = {"cifar10": 170_498_071, "cifar100": 169_001_437, "svhn": 246_316_179}
_ARCHIVES = (".gz", ".zip")
POLL_SEC = 1.0


class Download:
    """One set on its way to the data root.

    Attributes:
        name: Of the set.
    """

    def __init__(self, name: str, root: Path, behind: Worker) -> None:
        """Begins, or waits for its turn.

        Args:
            name: One that `can_download`.
            root: The data root.
            behind: Runs it.
        """
        self.name = name
        self._root = root
        self._partial: Path | None = None
        self._future: Future[None] = behind.submit(self._fetch)

    @property
    def is_done(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self._future.done()

    @property
    def problem(self) -> str:
        """Why it failed, one line; "" where it did not, or is not done."""
        error = self._future.exception() if self.is_done else None
        return "" if error is None else " ".join(str(error).split()) or type(error).__name__

    @property
    def progress(self) -> tuple[float, str]:
        """Its share, 0..1, and in words how far it is."""
        there, total = 0, _BYTES[self.name]
        folder = self._partial
        if folder is not None:
            for path in folder.rglob("*"):
                with suppress(OSError):
                    there += path.stat().st_size if path.is_file() else 0
        if there >= total:
            return 1.0, f"Unpacking {self.name}"
        return there / total, f"Downloading {self.name}: {there / 1e6:,.0f} of {total / 1e6:,.0f} MB"

    def _fetch(self) -> None:
        new = [one for one in (self._root, *self._root.parents) if not one.exists()]
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{self.name}-", dir=self._root, ignore_cleanup_errors=True
            ) as name:
                self._partial = Path(name)
                torchvision_sets.download(self.name, self._partial)
                _take_over(self._partial, self._root)
        except (DataError, OSError) as error:
            for folder in new:
                with suppress(OSError):
                    folder.rmdir()
            why = error.__cause__
            if isinstance(why, URLError) and not isinstance(why, HTTPError):
                raise DataError(
                    f"{self.name} could not be downloaded: its server cannot be reached. Is there a network?"
                ) from error
            raise DataError(str(error).replace(str(self._partial), str(self._root))) from error
        finally:
            self._partial = None


def _take_over(partial: Path, root: Path) -> None:
    """Moves what was unpacked to its place; the archives have done their work."""
    for path in sorted(partial.rglob("*")):
        if path.is_file() and path.suffix not in _ARCHIVES:
            place = root / path.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


def can_download(name: str) -> bool:
    """Whether a person may fetch that set from a page."""
    return name in torchvision_sets.NAMES and not is_read_only()


@st.cache_resource(show_spinner=False)
def _downloader() -> Worker:
    return Worker("downloads", in_parts=False)


@st.cache_resource(max_entries=16, show_spinner=False)
def _downloads(root: str) -> dict[str, Download]:
    return {}


def download_of(name: str) -> Download | None:
    """The set's last download to the data root in use, by anybody; None where there was none."""
    return _downloads(str(data.data_root())).get(name)


def start_download(name: str) -> Download:
    """Fetches a set, unless that is under way."""
    found = download_of(name)
    if found is None or found.is_done:
        found = Download(name, data.data_root(), _downloader())
        _downloads(str(data.data_root()))[name] = found
    return found
