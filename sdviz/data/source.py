"""The base class of the data sources in `sdviz.data.sources`."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from .imageset import DataError, ImageSet, OnError

# from the number of images in a set to the rows to read, int64
Choose = Callable[[int], np.ndarray]


def data_root() -> Path:
    """Where sets that are not built in are looked for."""
    return Path(os.environ.get("SDVIZ_DATA") or "data")


class Source(ABC):
    """One kind of image sets. A module in `sdviz.data.sources` has one, called SOURCE.

    A source answers for names of its own (`built_in`), or for names that begin with a kind and a colon
    (`kinds`), or, with neither, for sets under the data root (`names`).
    """

    order: int = 100  # its place in lists of names; of two sources with the same split the smaller one is read
    built_in: tuple[str, ...] = ()  # names of sets that are on every machine. No other source answers for them.
    # as "folder" for names such as folder:PATH. Such a set has one split; its ids end in "@" and a hash of the
    # picture, since two files may have the same name.
    kinds: tuple[str, ...] = ()
    # kinds that a form offers -> their title there, and the path of an example
    on_form: Mapping[str, tuple[str, str]] = {}
    downloads: Mapping[str, int] = {}  # names that `download` takes -> bytes to fetch
    size_px: int | None = None  # the only height and width that its images have; None where they are resized
    has_masks: bool = False  # whether `masks` takes its ids
    # sets whose colour is fixed, whichever others a bundle has -> its place among the shades of their role
    shades: Mapping[str, int] = {}

    def names(self) -> tuple[str, ...]:
        """The names that it finds under the data root."""
        return ()

    @abstractmethod
    def splits(self, name: str) -> tuple[str, ...]:
        """The splits of a set that are on this machine, none where it is not here; a path is not opened."""

    def all_splits(self, name: str) -> tuple[str, ...]:
        """The splits that a set in `downloads` has where it is complete."""
        raise NotImplementedError(name)

    @abstractmethod
    def load(
        self, name: str, split: str, choose: Choose, size_px: int, on_error: OnError, pictures: bool
    ) -> ImageSet:
        """Reads the chosen rows of a set.

        Args:
            name: One that this source answers for.
            split: One of `splits(name)`.
            choose: Chooses the rows, in the order wanted.
            on_error: What to do about a picture that cannot be decoded.
            pictures: Without, the caller needs labels and ids alone: pixels may be left out, (N,0,0,3), and the
                hash in an id as well.

        Raises:
            DataError: A set that cannot be read.
        """

    @abstractmethod
    def count(self, name: str, split: str) -> int:
        """How many rows there are, without decoding a picture. Raises DataError: as `load`."""

    def id_prefix(self, name: str, split: str) -> str:
        """What the ids of a set begin with; the row follows."""
        return f"{name}/{split}/"

    def find(self, name: str, split: str, ids: np.ndarray, size_px: int, pictures: bool) -> ImageSet:
        """Images by their ids.

        Args:
            ids: str (N,), each begins with `id_prefix`.
            pictures: As in `load`; without, the hash in an id is taken for true.

        Returns:
            A set that holds at least those of the images that are there; others may be in it.

        Raises:
            DataError: As `load`.
        """
        prefix = self.id_prefix(name, split)
        numbers = {one.removeprefix(prefix).partition("@")[0] for one in ids.tolist()}
        wanted = {int(number) for number in numbers if number.isascii() and number.isdigit()}

        def choose(n: int) -> np.ndarray:
            return np.array(sorted(row for row in wanted if row < n), np.int64)

        some = self.load(name, split, choose, size_px, "skip", pictures)
        if pictures or not self.kinds:
            return some
        asked = {one.partition("@")[0]: one for one in ids.tolist()}
        return replace(some, ids=np.array([asked.get(one, one) for one in some.ids.tolist()], dtype=str))

    def masks(self, ids: np.ndarray) -> np.ndarray:
        """The object masks of some of its images, bool (N,H,W). Raises DataError: an id of another source."""
        raise NotImplementedError

    def name_of(self, path: Path) -> str | None:
        """The name that opens a file or folder with this source; None where it does not open it."""
        return None

    def download(self, name: str, root: Path) -> None:
        """Fetches a set of `downloads` into a folder. Raises DataError: a download that failed."""
        raise NotImplementedError(name)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """How names with a path begin, as "folder:"."""
        return tuple(f"{kind}:" for kind in self.kinds)


def path_in(name: str) -> Path:
    """The path in a name such as folder:PATH. Raises DataError: there is none."""
    kind, _, path = name.partition(":")
    if not path:
        raise DataError(f"{name} needs a path, as in {kind}:PATH")
    return Path(path).expanduser()


def row_ids(prefix: str, rows: np.ndarray) -> np.ndarray:
    """str (N,): a prefix and the row's number, five digits at least."""
    return np.array([f"{prefix}{row:05d}" for row in rows.tolist()], dtype=str)


def no_pictures(n: int) -> np.ndarray:
    """Images without pixels, uint8 (n,0,0,3)."""
    return np.empty((n, 0, 0, 3), np.uint8)
