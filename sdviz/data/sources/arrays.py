"""Images in NumPy files: `npz:PATH` and `npy:PATH`.

Images are numbers of any type, (N,H,W,3), (N,3,H,W), (N,H,W,1), (N,1,H,W) or (N,H,W). In an .npz they are
called `images`, `x`, `data` or `arr_0`, else they are the only array of that shape; labels are `labels`, `y`,
`targets` or `arr_1`, with optional `class_names`. With a split in their names, as `train_images` or `x_train`,
there are splits. An .npy has only images.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...text import writable
from ..decode import Picture, of_array
from ..found import Found
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, short_hash
from ..layouts.array_names import (
    IMAGE_WORDS,
    SHAPES,
    ArrayNames,
    arrays_by_split,
    channels_of,
    is_numeric,
    only_images,
)
from ..layouts.labels import check_names, checked_labels, class_words, numbered
from ..levels import Extremes
from ..source import (
    WHOLE,
    Choose,
    Source,
    address,
    exists,
    only_asked,
    path_in,
    reading_of,
    row_ids,
    sample_order,
)
from ..stack import ImageStack, Reading

_MAGIC = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")  # the first bytes of either kind
_LARGEST_ARRAY = 2**34  # bytes, when unpacked; an .npy of any size is read in place
_PICKLED = "it holds Python objects, which are never opened"


@contextmanager
def _arrays(name: str) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a file by name; an .npz reads each when it is used."""
    kind, path = name.partition(":")[0], path_in(name)
    if address(name).options:
        raise DataError(f"{name}: an .{kind} file has no options")
    if not path.is_file():
        raise DataError(f"{name}: {path} {'is not a file' if exists(path) else 'does not exist'}")
    with reading_of(f"{path} cannot be read as .{kind}"):
        with path.open("rb") as stream:
            if not stream.read(8).startswith(_MAGIC):
                raise DataError(f"{path} cannot be read as .{kind}: it does not begin as a NumPy file does")
        try:
            # never a pickle, which could run any code
            opened = np.load(path, mmap_mode="r" if kind == "npy" else None, allow_pickle=False)
        except ValueError as error:
            if "pickle" in str(error) or "Python objects" in str(error):
                raise DataError(f"{path} cannot be read as .{kind}: {_PICKLED}") from error
            raise
        is_npz = isinstance(opened, np.lib.npyio.NpzFile)
        if is_npz != (kind == "npz"):
            actual = "npz" if is_npz else "npy"
            raise DataError(f"{path} is an .{actual} file: open it as {actual}:PATH")
        if not is_npz:
            yield {IMAGE_WORDS[0]: opened}
            return
        with opened:
            yield _Npz(path, opened)


class _Npz(Mapping[str, np.ndarray]):
    """The arrays of an .npz, each read once, when it is used."""

    def __init__(self, path: Path, opened: "np.lib.npyio.NpzFile") -> None:
        self._path, self._opened = path, opened
        self._sizes = {one.filename: one.file_size for one in opened.zip.infolist()} if opened.zip else {}
        self._read: dict[str, np.ndarray] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened.files)

    def __len__(self) -> int:
        return len(self._opened.files)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._read:
            size = self._sizes.get(f"{name}.npy", 0)
            if size > _LARGEST_ARRAY:
                raise DataError(
                    f"{self._path}: {name} has {size:,} bytes; save it as .npy, which is read in place"
                )
            try:
                self._read[name] = self._opened[name]
            except ValueError as error:
                if "pickle" in str(error) or "Python objects" in str(error):
                    raise DataError(f"{self._path} cannot be read as .npz: {_PICKLED}") from error
                raise
        return self._read[name]


@dataclass(frozen=True, eq=False)
class _Pictures:
    """The pictures of a split."""

    array: np.ndarray
    channels: str  # as of `channels_of`

    def row(self, row: int) -> np.ndarray:
        """One picture, (H,W) or (H,W,C)."""
        one = np.asarray(self.array[row])
        return np.ascontiguousarray(one.transpose(1, 2, 0) if self.channels == "first" else one)

    def picture(self, row: int) -> Picture:
        return of_array(self.row(row))


def _by_split(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, ArrayNames]:
    found = arrays_by_split(arrays)
    if found:
        return found
    labels = arrays_by_split(["images", *arrays])[WHOLE].labels
    return {WHOLE: ArrayNames(only_images(str(path_in(name)), arrays), labels)}


def _pictures(name: str, arrays: Mapping[str, np.ndarray], of: ArrayNames) -> _Pictures:
    array = arrays[of.images]
    if not is_numeric(array):
        raise DataError(f"{path_in(name)}: {of.images} must be numbers {SHAPES}, not {array.dtype}")
    return _Pictures(array, channels_of(f"{path_in(name)}: {of.images}", array.shape))


def _words(values: np.ndarray) -> list[str]:
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values.tolist()]


def _labels(
    path: Path, arrays: Mapping[str, np.ndarray], of: ArrayNames, every: Mapping[str, ArrayNames], n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of all rows, int64 (n,), -1 where unknown; and class names, else numbers as names."""
    if of.labels is None:
        return np.full(n, UNKNOWN_LABEL, np.int64), ()
    values = arrays[of.labels]
    if values.dtype.kind in "USb" and values.shape in ((n,), (n, 1)):
        # the classes of all splits, so that labels agree between them
        same = [arrays[one.labels] for one in every.values() if one.labels is not None]
        classes = class_words(word for one in same for word in _words(one.reshape(-1)))
        return numbered(_words(values.reshape(n)), classes), classes
    if values.ndim == 2 and values.shape[0] == n and values.shape[1] > 1 and values.dtype.kind in "iufb":
        if not np.array_equal(np.sort(values, 1)[:, -2:], np.tile([0, 1], (n, 1))):
            raise DataError(f"{path}: a row of {of.labels} {values.shape} has not exactly one 1")
        values = values.argmax(1)
    if values.shape not in ((n,), (n, 1)) or values.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: {of.labels} must be whole numbers or words ({n},), not {values.dtype} {values.shape}"
        )
    given = arrays["class_names"] if "class_names" in arrays else None
    names = None if given is None else check_names(str(path), np.asarray(given).reshape(-1).tolist())
    return checked_labels(str(path), values.reshape(n).astype(np.float64), names)


class Arrays(Source):
    """`npz:PATH` and `npy:PATH`, or `npz:PATH:SPLIT`.

    An id is `npz/<file's stem>/<row>@<12 hex digits of the pixels' SHA-256>`; with splits it is
    `npz/<file's stem>/<split>/<row>@...`.
    """

    order = 12
    kinds = ("npz", "npy")
    one_file = True

    def splits(self, name: str) -> tuple[str, ...]:
        if name.startswith("npy:") or not exists(path_in(name)):
            return only_asked(name, (WHOLE,))
        with _arrays(name) as arrays:
            return only_asked(name, tuple(_by_split(name, arrays)))

    def load(self, name: str, split: str, choose: Choose, reading: Reading) -> ImageSet:
        # of an .npy only the chosen rows are read
        path = path_in(name)
        with _arrays(name) as arrays:
            every = _by_split(name, arrays)
            of = every[split]
            pictures = _pictures(name, arrays, of)
            n = len(pictures.array)
            if not n:
                raise DataError(f"{path} holds no images")
            labels, class_names = _labels(path, arrays, of, every, n)
            rows = choose(n)
            stack = ImageStack(len(rows), reading, lambda: _extremes(name, arrays, every))
            ids = row_ids(self.id_prefix(name, split), rows).astype(object)
            for position, row in enumerate(rows.tolist() if reading.pictures else []):
                pixels = pictures.row(row)
                ids[position] += f"@{short_hash(pixels.tobytes())}"
                stack.put(position, of_array(pixels))
            sizes = {one: len(arrays[other.images]) for one, other in every.items()}
        found = stack.found(Found(splits=sizes))
        return ImageSet(name, split, stack.images, labels[rows], ids.astype(str), class_names, None, found)

    def count(self, name: str, split: str) -> int:
        with _arrays(name) as arrays:
            return len(_pictures(name, arrays, _by_split(name, arrays)[split]).array)

    def paths(self, name: str, split: str) -> list[Path]:
        return [path_in(name)]

    def id_prefix(self, name: str, split: str) -> str:
        stem = f"{name.partition(':')[0]}/{writable(path_in(name).stem)}/"
        return stem if split == WHOLE else f"{stem}{split}/"

    def name_of(self, path: Path) -> str | None:
        kind = path.suffix.lower().removeprefix(".")
        return f"{kind}:{path}" if path.is_file() and kind in self.kinds else None


def _extremes(
    name: str, arrays: Mapping[str, np.ndarray], every: Mapping[str, ArrayNames]
) -> Iterator[Extremes]:
    """The extremes of the pictures of all splits, in the order of `sample_order`."""
    groups = [_pictures(name, arrays, of) for of in every.values()]
    starts = np.cumsum([0, *(len(group.array) for group in groups)])
    for row in sample_order(int(starts[-1])).tolist():
        at = int(np.searchsorted(starts, row, side="right")) - 1
        yield groups[at].picture(row - int(starts[at])).extremes


SOURCE = Arrays()
