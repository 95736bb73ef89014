"""Images in NumPy files: `npz:PATH` and `npy:PATH`.

Images are uint8, (N,H,W,3) or (N,3,H,W). In an .npz they are the array `images`, `x`, `data` or `arr_0`, else
the only array of that kind; optional labels are whole numbers (N,) in `labels`, `label`, `y`, `targets` or
`arr_1`, with optional `class_names`. An .npy has only images.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ..decode import to_square
from ..imageset import UNKNOWN_LABEL, DataError, ImageSet, OnError, checked_labels, short_hash
from ..source import WHOLE, Choose, Source, path_in, row_ids

IMAGE_NAMES = ("images", "x", "data", "arr_0")
LABEL_NAMES = ("labels", "label", "y", "targets", "arr_1")
_MAGIC = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")  # the first bytes of either kind


@contextmanager
def _arrays(name: str) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a file by name; an .npz reads each when it is used."""
    kind, path = name.partition(":")[0], path_in(name)
    if not path.is_file():
        raise DataError(f"{name}: {path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        with path.open("rb") as stream:
            if not stream.read(8).startswith(_MAGIC):
                raise DataError(f"{path} cannot be read as .{kind}: it does not begin as a NumPy file does")
        # never a pickle, which could run any code
        opened = np.load(path, mmap_mode="r" if kind == "npy" else None, allow_pickle=False)
        is_npz = isinstance(opened, np.lib.npyio.NpzFile)
        if is_npz != (kind == "npz"):
            actual = "npz" if is_npz else "npy"
            raise DataError(f"{path} is an .{actual} file: open it as {actual}:PATH")
        try:
            yield opened if is_npz else {IMAGE_NAMES[0]: opened}
        finally:
            if is_npz:
                opened.close()
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        if "pickle" in reason or "Python objects" in reason:
            reason = "it holds Python objects, which are never opened"
        raise DataError(f"{path} cannot be read as .{kind}: {reason}") from error


def _images(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    path = path_in(name)
    names = list(arrays)
    named = next((one for one in IMAGE_NAMES if one in names), None)
    if named is not None:
        found = arrays[named]
        if not _is_images(found):
            raise DataError(
                f"{path}: images must be uint8 (N,H,W,3) or (N,3,H,W), not {found.dtype} {found.shape}"
            )
        return found
    fitting = [one for one in names if _is_images(arrays[one])]
    if len(fitting) != 1:
        what = "no array" if not fitting else f"{len(fitting)} arrays"
        raise DataError(
            f"{path} has {what} of images, uint8 (N,H,W,3) or (N,3,H,W), and none called"
            f" {' or '.join(IMAGE_NAMES)}; it has {', '.join(names) or 'nothing'}"
        )
    return arrays[fitting[0]]


def _is_images(array: np.ndarray) -> bool:
    return bool(
        array.dtype == np.uint8
        and array.ndim == 4
        and 3 in (array.shape[3], array.shape[1])
        and min(array.shape[1:]) > 0
    )


def _labels(path: Path, arrays: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of all rows, int64 (n,), -1 where unknown; and class names, else numbers as names."""
    named = next((one for one in LABEL_NAMES if one in arrays), None)
    if named is None:
        return np.full(n, UNKNOWN_LABEL, np.int64), ()
    values = arrays[named]
    if values.shape not in ((n,), (n, 1)) or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: {named} must be whole numbers ({n},), not {values.dtype} {values.shape}")
    values = values.reshape(n).astype(np.float64)
    given = arrays["class_names"] if "class_names" in arrays else None
    names = None if given is None else tuple(str(one) for one in np.asarray(given).reshape(-1).tolist())
    return checked_labels(str(path), values, names)


class Arrays(Source):
    """`npz:PATH` and `npy:PATH`. An id is `npz/<file's stem>/<row>@<12 hex digits of the pixels' SHA-256>`."""

    order = 12
    kinds = ("npz", "npy")

    def load(
        self, name: str, split: str, choose: Choose, size_px: int, on_error: OnError, pictures: bool
    ) -> ImageSet:
        # of an .npy only the chosen rows are read
        path = path_in(name)
        with _arrays(name) as arrays:
            images = _images(name, arrays)
            n = len(images)
            if not n:
                raise DataError(f"{path} holds no images")
            labels, class_names = _labels(path, arrays, n)
            rows = choose(n)
            edge = size_px if pictures else 0
            stack = np.empty((len(rows), edge, edge, 3), np.uint8)
            ids = row_ids(self.id_prefix(name, split), rows).astype(object)
            for position, row in enumerate(rows.tolist() if pictures else []):
                one = np.asarray(images[row])
                pixels = np.ascontiguousarray(one if one.shape[2] == 3 else one.transpose(1, 2, 0))
                ids[position] += f"@{short_hash(pixels.tobytes())}"
                fits = pixels.shape[:2] == (edge, edge)
                stack[position] = pixels if fits else to_square(Image.fromarray(pixels), edge)
        return ImageSet(name, WHOLE, stack, labels[rows], ids.astype(str), class_names)

    def count(self, name: str, split: str) -> int:
        with _arrays(name) as arrays:
            return len(_images(name, arrays))

    def files(self, name: str, split: str) -> list[Path]:
        return [path_in(name)]

    def id_prefix(self, name: str, split: str) -> str:
        return f"{name.partition(':')[0]}/{path_in(name).stem}/"

    def name_of(self, path: Path) -> str | None:
        kind = path.suffix.lower().removeprefix(".")
        return f"{kind}:{path}" if path.is_file() and kind in self.kinds else None


SOURCE = Arrays()
