"""The base class of the data sources in `sdviz.data.sources`."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from .imageset import DataError, ImageSet, OnError

# number of images in a set -> rows to read, int64
Choose = Callable[[int], np.ndarray]
WHOLE = "all"  # the split of a set without named splits


def data_root() -> Path:
    """The folder of the sets that are not built in."""
    return Path(os.environ.get("SDVIZ_DATA") or "data")


class Source(ABC):
    """One kind of image sets. A module in `sdviz.data.sources` has one, called SOURCE.

    It serves its built-in names, or names that begin with one of its kinds and a colon, or, if it has neither,
    sets under the data root.
    """

    order: int = 100  # its place in lists of names; of two sources with the same split the smaller one is read
    built_in: tuple[str, ...] = ()  # sets that exist on every machine; no other source serves these names
    # such as "folder" for folder:PATH. Such a set has one split; its ids end in "@" and a hash of the picture,
    # since two files may have the same name.
    kinds: tuple[str, ...] = ()
    on_form: Mapping[str, tuple[str, str]] = {}  # kind -> its title in a form, and an example of a path
    downloads: Mapping[str, int] = {}  # sets that `download` can fetch -> bytes
    mask_px: int | None = None  # height and width of its object masks; None if it has none
    shades: Mapping[str, int] = {}  # sets with a fixed colour -> its place among the shades of their role

    def names(self) -> tuple[str, ...]:
        """The sets that it finds under the data root."""
        return ()

    def splits(self, name: str) -> tuple[str, ...]:
        """The splits on this machine, () if the set is not here. For a path, which is not opened: "all"."""
        path_in(name)
        return (WHOLE,)

    def all_splits(self, name: str) -> tuple[str, ...]:
        """All splits of a set in `downloads`, whether they are here or not."""
        raise NotImplementedError(name)

    @abstractmethod
    def load(
        self, name: str, split: str, choose: Choose, size_px: int, on_error: OnError, pictures: bool
    ) -> ImageSet:
        """Reads the chosen rows of a set.

        Args:
            name: A set of this source.
            split: One of `splits(name)`.
            choose: Chooses the rows and their order.
            on_error: For a picture that cannot be decoded.
            pictures: If False, the images may be (N,0,0,3), and ids may lack their hash.

        Raises:
            DataError: The set cannot be read.
        """

    @abstractmethod
    def count(self, name: str, split: str) -> int:
        """The number of rows, without decoding. Raises as `load`."""

    def id_prefix(self, name: str, split: str) -> str:
        """The beginning of a set's ids, before the row."""
        return f"{name}/{split}/"

    def find(self, name: str, split: str, ids: np.ndarray, size_px: int, pictures: bool) -> ImageSet:
        """Finds images by their ids; the result may hold other images, too. Raises as `load`.

        Args:
            ids: str (N,), each begins with `id_prefix`.
            pictures: As in `load`; if False, the hash in an id is not checked.
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
        """Object masks by id: bool (N,H,W). Raises DataError for an id of another source."""
        raise NotImplementedError

    def path_of(self, name: str, one: str) -> Path | None:
        """The file that an id of a set names or that has its image; None for a set without a path."""
        return path_in(name) if self.kinds else None

    def name_of(self, path: Path) -> str | None:
        """The name that opens a file or folder with this source; None if it cannot open it."""
        return None

    def download(self, name: str, root: Path) -> None:
        """Downloads a set of `downloads` into a folder; DataError if that fails."""
        raise NotImplementedError(name)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The beginnings of its names with a path, such as "folder:"."""
        return tuple(f"{kind}:" for kind in self.kinds)


def path_in(name: str) -> Path:
    """The path in a name such as folder:PATH; DataError if there is none."""
    kind, _, path = name.partition(":")
    if not path:
        raise DataError(f"{name} needs a path, as in {kind}:PATH")
    return Path(path).expanduser()


def row_ids(prefix: str, rows: np.ndarray) -> np.ndarray:
    """Ids, str (N,): the prefix and the row's number with at least five digits."""
    return np.array([f"{prefix}{row:05d}" for row in rows.tolist()], dtype=str)


def no_pictures(n: int) -> np.ndarray:
    """Images without pixels, uint8 (n,0,0,3)."""
    return np.empty((n, 0, 0, 3), np.uint8)
