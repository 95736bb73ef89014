"""Downloads data sets in the background, whole or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

from sdviz import data
from sdviz.data import DataError
from sdviz.ui.cache.background import Task, start
from sdviz.ui.cache.kept import store
from sdviz.ui.guests import check_may_write, refusal

_ARCHIVES = (".gz", ".zip")
POLL_SEC = 1.0


class Download:
    """The download of one data set to the data folder."""

    def __init__(self, name: str, root: Path) -> None:
        """Starts the download of a set for which `can_download` is true."""
        self.name = name
        self._root = root
        self._partial: Path | None = None
        self._task: Task[None] = start("downloads", lambda task: self._fetch())

    @property
    def is_done(self) -> bool:
        """Tells whether it has ended, well or badly."""
        return self._task.is_done

    @property
    def problem(self) -> str:
        """Why it failed, in one line; "" if it has not failed."""
        error = self._task.error
        return "" if error is None else " ".join(str(error).split()) or type(error).__name__

    @property
    def progress(self) -> tuple[float, str]:
        """The share done, 0..1, and a line that says it."""
        there, total = 0, data.DOWNLOADS[self.name]
        folder = self._partial  # the download may set it to None
        for path in folder.rglob("*") if folder else ():
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
                data.download(self.name, self._partial)
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
    """Moves unpacked files to their place, and leaves the archives."""
    for path in sorted(partial.rglob("*")):
        if path.is_file() and path.suffix not in _ARCHIVES:
            place = root / path.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)


def can_download(name: str) -> bool:
    """Tells whether a page may download that set."""
    return name in data.DOWNLOADS and not refusal()


def download_of(name: str) -> Download | None:
    """Returns the last download of a set to the data folder in use, by anybody; None for none."""
    found: Download | None = store("downloads").get(_key(name))
    return found


def start_download(name: str) -> Download:
    """Starts the download of a set, unless it is running. Raises GuestError: not allowed."""
    check_may_write()
    found = download_of(name)
    if found is None or found.is_done:
        store("downloads").drop(_key(name))
        found = store("downloads").put(_key(name), Download(name, data.data_root()))
    return found


def _key(name: str) -> tuple[str, str]:
    return name, str(data.data_root())
