"""The base class of the data sources in `sdviz.data.sources`."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path

import numpy as np

from ..text import writable
from .imageset import DataError, ImageSet, permutation
from .layouts.split_names import meant
from .stack import Reading

# number of images in a set -> rows to read, int64
Choose = Callable[[int], np.ndarray]
WHOLE = "all"  # the split of a set without named splits
_OPTIONS = re.compile(r"(?s)(.*?)\?(\w+=.*)")


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
    # such as "folder" for folder:PATH, with the split in the name as folder:PATH:test. Its ids end in "@" and a
    # hash of the picture, since two files may have the same name.
    kinds: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # such as "label", for PATH?label=COLUMN
    on_form: Mapping[str, tuple[str, str]] = {}  # kind -> its title in a form, and an example of a path
    downloads: Mapping[str, int] = {}  # sets that `download` can fetch -> bytes
    one_file: bool = False  # whether a file has all splits of its set
    mask_px: int | None = None  # height and width of its object masks; None if it has none
    shades: Mapping[str, int] = {}  # sets with a fixed colour -> its place among the shades of their role

    def names(self) -> tuple[str, ...]:
        """The sets that it finds under the data root."""
        return ()

    @abstractmethod
    def splits(self, name: str) -> tuple[str, ...]:
        """The splits on this machine, () if the set is not here; for a path that does not exist: "all"."""

    def all_splits(self, name: str) -> tuple[str, ...]:
        """All splits of a set in `downloads`, whether they are here or not."""
        raise NotImplementedError(name)

    @abstractmethod
    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        """Reads the chosen rows of a set.

        Args:
            name: A set of this source.
            split: One of `splits(name)`.
            choose: Chooses the rows and their order.

        Raises:
            DataError: The set cannot be read.
        """

    @abstractmethod
    def count(self, name: str, split: str) -> int:
        """The number of rows, without decoding. Raises as `load`."""

    def paths(self, name: str, split: str) -> Sequence[Path]:
        """The files that a split is read from; () if none of them is a user's own."""
        return ()

    def id_prefix(self, name: str, split: str) -> str:
        """The beginning of a set's ids, before the row."""
        return f"{name}/{split}/"

    def find(self, name: str, split: str, ids: np.ndarray, reading: Reading) -> ImageSet:
        """Finds images by their ids; the result may hold other images, too. Raises as `load`.

        Args:
            ids: str (N,), each begins with `id_prefix`; without pictures, a hash in it is not checked.
        """
        prefix = self.id_prefix(name, split)
        numbers = {one.removeprefix(prefix).partition("@")[0] for one in ids.tolist()}
        wanted = {int(number) for number in numbers if number.isascii() and number.isdigit()}

        def choose(n: int) -> np.ndarray:
            return np.array(sorted(row for row in wanted if row < n), np.int64)

        some = self.load(name, split, choose, replace(reading, on_error="skip"))
        if reading.pictures or not self.kinds:
            return some
        asked = {one.partition("@")[0]: one for one in ids.tolist()}
        return replace(some, ids=np.array([asked.get(one, one) for one in some.ids.tolist()], dtype=str))

    def masks(self, ids: np.ndarray) -> np.ndarray:
        """Object masks by id: bool (N,H,W). Raises DataError for an id of another source."""
        raise NotImplementedError

    def paths_of(self, name: str, ids: Sequence[str]) -> Sequence[Path | None]:
        """For each id of a set, the file that has its image; None for a set without a path."""
        return [path_in(name) if self.kinds else None] * len(ids)

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


@dataclass(frozen=True)
class Address:
    """What a name with a path says."""

    path: Path
    split: str | None  # as in folder:PATH:test
    options: Mapping[str, str]  # as in parquet:PATH?label=breed


def address(name: str) -> Address:
    """Reads a name such as folder:PATH, folder:PATH:SPLIT or parquet:PATH?label=COLUMN.

    What exists as it stands is a path, whatever characters it has. DataError if there is no path.
    """
    kind, _, text = name.partition(":")
    if not text:
        raise DataError(f"{name} needs a path, as in {kind}:PATH")
    if exists(path := _path(name, text)):
        return Address(path, None, {})
    options: dict[str, str] = {}
    if (parts := _OPTIONS.fullmatch(text)) is not None:
        text, options = parts[1], dict(one.partition("=")[::2] for one in parts[2].split("&"))
        if exists(path := _path(name, text)):
            return Address(path, None, options)
    head, _, tail = text.rpartition(":")
    if tail and head and (has_magic(head) or exists(_path(name, head))):
        return Address(_path(name, head), tail, options)
    return Address(path, None, options)


def path_in(name: str) -> Path:
    """The path in a name such as folder:PATH; DataError if there is none."""
    return address(name).path


def exists(path: Path) -> bool:
    """Whether a path leads anywhere; False, too, for what can be no path."""
    return os.path.exists(path)


def only_asked(name: str, present: tuple[str, ...]) -> tuple[str, ...]:
    """The splits of a set with a path: all, or the one that its name asks for.

    Raises:
        DataError: It has no such split.
    """
    asked = address(name).split
    if asked is None:
        return present
    split = meant(asked, present)
    if split is None:
        raise DataError(f"{name}: no split {asked!r}; it has {', '.join(present)}")
    return (split,)


@contextmanager
def reading_of(what: str) -> Iterator[None]:
    """Makes any error that a library raises over a damaged file a DataError that begins with `what`."""
    try:
        yield
    except (DataError, NameError):  # a name that is not there is our own fault
        raise
    except Exception as error:  # for altered bytes libraries raise anything, MemoryError and RecursionError too
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
        first = next(iter(reason.splitlines()), "")
        told = first if first and " object at 0x" not in first else type(error).__name__
        raise DataError(f"{what}: {told}") from error


def sample_order(n: int) -> np.ndarray:
    """The order in which a set's pictures are looked at for its value range: int64 (n,), whatever is loaded."""
    return permutation(n, 0)


def _path(name: str, text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"{name}: no such user") from error
    return unescaped(path) if writable(text) == text else path


def unescaped(path: Path) -> Path:
    """The file that a path means in which bytes that are no UTF-8 stand as %E9, as `writable` writes them."""
    if exists(path):
        return path
    escaped = re.compile(rb"%([89A-Fa-f][0-9A-Fa-f])")
    raw = escaped.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(path))
    return other if exists(other := Path(os.fsdecode(raw))) else path


def row_ids(prefix: str, rows: np.ndarray) -> np.ndarray:
    """Ids, str (N,): the prefix and the row's number with at least five digits."""
    return np.array([f"{prefix}{row:05d}" for row in rows.tolist()], dtype=str)


def no_pictures(n: int) -> np.ndarray:
    """Images without pixels, uint8 (n,0,0,3)."""
    return np.empty((n, 0, 0, 3), np.uint8)
