"""Data sets in Parquet files, NumPy files and lists of pictures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sdviz import data
from sdviz.data import DataError
from sdviz.data.formats import readable
from sdviz.text import writable

from .cases import Kind, Wrong, a_word, as_text, mutated, same
from .pictures import EXPLICIT, Sample, a_picture, altered, compare_picture, usual_range

SIZE_PX = 8


@dataclass(frozen=True)
class _Pictures:
    """Pictures of one set, sound and damaged."""

    samples: list[Sample]
    blobs: list[bytes]

    @staticmethod
    def made(rng: random.Random, n: int) -> _Pictures:
        samples = [a_picture(rng, SIZE_PX, SIZE_PX) for _ in range(n)]
        damaged = rng.choice((0, 0, 0.3, 1))
        return _Pictures(
            samples, [altered(rng, one.blob) if rng.random() < damaged else one.blob for one in samples]
        )

    def sample_of(self, blob: bytes) -> Sample | None:
        return next((one for one in self.samples if one.blob == blob), None)


def _compare(found: data.ImageSet, blob_of: Mapping[str, list[bytes]], known: _Pictures) -> list[bytes]:
    """Compares the pictures of a set, by the hash in their ids; gives their files in its order."""
    blobs = []
    for row, one in enumerate(found.ids.tolist()):
        digest = one.rpartition("@")[2]
        if digest not in blob_of:
            raise Wrong(f"{one}: no such picture")
        blob = blob_of[digest][0]
        compare_picture(found.images[row], blob, EXPLICIT, known.sample_of(blob), readable().names)
        blobs.append(blob)
    return blobs


def _by_hash(blobs: list[bytes]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for blob in blobs:
        found.setdefault(hashlib.sha256(blob).hexdigest()[:12], []).append(blob)
    return found


def _load(name: str, split: str) -> data.ImageSet:
    return data.load(name, split, on_error="skip", size_px=SIZE_PX, value_range=EXPLICIT)


def _row(one: str) -> int:
    """The row in an id that ends in row@hash."""
    return int(one.rpartition("/")[2].partition("@")[0])


# --- Parquet --------------------------------------------------------------------------------------


def _parquet_table(rng: random.Random, pictures: _Pictures) -> pa.Table:
    n = len(pictures.blobs)
    blobs: list[object] = list(pictures.blobs)
    if rng.random() < 0.6:
        blobs = [{"bytes": one, "path": f"{i}.png"} for i, one in enumerate(pictures.blobs)]
    columns = {rng.choice(("image", "img", "picture")): pa.array(blobs)}
    how = rng.randrange(6)
    name = rng.choice(("label", "labels", "fine_label"))
    names = ["cat", "dog", "=1+1"]
    metadata: dict[str, str] = {}
    if how == 0:
        columns[name] = pa.array([rng.choice([*names, None, ""]) for _ in range(n)], pa.string())
    elif how == 1:
        columns[name] = pa.array([rng.choice((True, False, None)) for _ in range(n)])
    elif how in (2, 3):
        columns[name] = pa.array(
            [rng.choice((0, 1, 2, -1)) for _ in range(n)], rng.choice((pa.int64(), pa.int8()))
        )
        feature = {"names": rng.choice((names, None)), "_type": "ClassLabel"}
        about = {"info": {"features": {name: feature}}}
        metadata = rng.choice(({}, {"class_names": json.dumps(names)}, {"huggingface": json.dumps(about)}))
    elif how == 4:
        columns[name] = pa.array([rng.choice((0.0, 1.0, None)) for _ in range(n)])
    if rng.random() < 0.3:
        columns[a_word(rng, 20).encode("utf-8", "replace").decode()] = pa.array(range(n))
    if rng.random() < 0.3:
        metadata = {key: as_text(mutated(rng, one.encode())) for key, one in metadata.items()}
    raw = {key: one.encode("utf-8", "surrogateescape") for key, one in metadata.items()}
    return pa.table(columns).replace_schema_metadata(raw)


def _parquet(rng: random.Random, folder: Path) -> None:
    pictures = _Pictures.made(rng, rng.randint(1, 6))
    table = _parquet_table(rng, pictures)
    names = rng.choice((("a.parquet",), ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
                        ("train.parquet", "test.parquet"), (a_word(rng, 30).replace("/", "_"),)))  # fmt: skip
    cut = len(table) // len(names)
    for i, name in enumerate(names):
        if not name.endswith(".parquet"):
            name = "".join(c for c in name if c.isprintable())[:30] + ".parquet"
        part = table.slice(i * cut, cut if i + 1 < len(names) else None)
        pq.write_table(part, folder / name, compression=rng.choice(("snappy", "zstd", "none")))
        if rng.random() < 0.3:
            (folder / name).write_bytes(mutated(rng, (folder / name).read_bytes()))
    where = next(iter(folder.iterdir())) if len(names) == 1 else folder
    name = f"parquet:{where}"
    for split in data.splits(name):
        found = _load(name, split)
        files = sorted(
            one for one in folder.iterdir() if len(data.splits(name)) == 1 or one.name.startswith(split)
        )
        schema = pq.read_schema(files[0])
        binary = [one.name for one in schema if pa.types.is_binary(one.type) or pa.types.is_struct(one.type)]
        image = next((one for one in ("img", "image") if one in schema.names), binary[0])
        wanted = [one for one in schema.names if one in (image, "label", "labels", "fine_label")]
        rows = [row for file in files for row in pq.ParquetFile(file).read(wanted).to_pylist()]
        cells = [row[image]["bytes"] if isinstance(row[image], dict) else row[image] for row in rows]
        blobs = _compare(found, _by_hash([one for one in cells if one is not None]), pictures)
        label = next((one for one in ("label", "labels", "fine_label") if one in rows[0]), None)
        for at, blob in enumerate(blobs):
            row = rows[_row(found.ids[at])]
            same(blob, cells[_row(found.ids[at])], found.ids[at])
            _same_class(found.label_name(at), row[label] if label else None, found.class_names)
        same(len(found) + len(found.found.unreadable), len(rows), "pictures and unreadable ones")


def _same_class(name: str, value: object, classes: tuple[str, ...]) -> None:
    """Compares the class of a picture with the cell of its label."""
    if value is None or value in ("", -1) or value != value:
        same(name, "unlabelled", "class")
    elif isinstance(value, str | bool):
        same(name, writable(str(value)), "class")
    else:
        same(name, classes[int(value)], "class")


# --- NumPy ----------------------------------------------------------------------------------------


def _arrays(rng: random.Random, folder: Path) -> None:
    draw = np.random.default_rng(rng.getrandbits(32))
    n, dtype = rng.randint(1, 5), rng.choice(("u1", "u1", "<u2", ">u2", "f4", "f2", "i4", "b1"))
    form = rng.choice(((3,), (1,), (), (4,)))
    top = rng.choice((255, 1023, 4095, 65535)) if dtype[-2:] in ("u2", "i4") else 255
    images = draw.integers(0, top + 1, (n, SIZE_PX, SIZE_PX, *form))
    if dtype[0] == "f":
        images = images / top * rng.choice((1, 1, 100))
    images = images.astype(dtype)
    if rng.random() < 0.2 and form:
        images = images.transpose(0, 3, 1, 2)
    names, labels = ("images", "labels"), rng.choice((draw.integers(-1, 3, n), draw.choice(["cat", "dög"], n)))
    if rng.random() < 0.3:
        names = ("x_train", "y_train")
    as_npy = rng.random() < 0.3
    content = {names[0]: images} if as_npy else {names[0]: images, names[1]: labels}
    file = folder / f"{rng.choice(('a', '=1+1', 'é b'))}.{'npy' if as_npy else 'npz'}"
    _write_arrays(rng, file, content)
    name, value_range = f"{file.suffix[1:]}:{file}", rng.choice(("auto", EXPLICIT))
    for split in data.splits(name):
        found = data.load(name, split, size_px=SIZE_PX, value_range=value_range)
        opened = np.load(file, allow_pickle=False)
        stored = opened if as_npy else opened[next(one for one in opened.files if one in ("images", "x_train"))]
        same(len(found), len(stored), "pictures")
        _compare_arrays(found, stored, value_range)
        label_name = (
            None if as_npy else next((one for one in opened.files if one in ("labels", "y_train")), None)
        )
        if label_name is not None:
            given = opened[label_name].reshape(-1).tolist()
            for row, value in enumerate(given):
                _same_class(found.label_name(row), value, found.class_names)


def _write_arrays(rng: random.Random, file: Path, content: dict[str, np.ndarray]) -> None:
    """Writes an .npy or .npz; sometimes changed as a whole, or its arrays before they are packed."""
    raw = {}
    damaged = rng.random() < 0.5
    for key, array in content.items():
        stream = io.BytesIO()
        np.save(stream, array)
        raw[key] = mutated(rng, stream.getvalue()) if damaged and rng.random() < 0.6 else stream.getvalue()
        if rng.random() < 0.1:  # another text of as many bytes in the header
            raw[key] = raw[key].replace(b"(", rng.choice((b"(-", b"(9", b"((" * 900)), 1)
    if file.suffix == ".npy":
        file.write_bytes(next(iter(raw.values())))
        return
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as packed:
        for key, blob in raw.items():
            packed.writestr(f"{key}.npy", blob)
    if rng.random() < 0.3:
        file.write_bytes(mutated(rng, file.read_bytes()))


def _compare_arrays(found: data.ImageSet, stored: np.ndarray, value_range: str) -> None:
    numbers = stored.astype(np.float64)
    if numbers.ndim == 4 and numbers.shape[3] not in (1, 3, 4):
        numbers = numbers.transpose(0, 2, 3, 1)
    if numbers.shape[1:3] != (SIZE_PX, SIZE_PX) or (numbers.ndim == 4 and numbers.shape[3] == 4):
        return  # resized, or with alpha
    if numbers.ndim == 3:
        numbers = numbers[..., None]
    is_float = stored.dtype.kind in "fb"
    low, high = usual_range(numbers, is_float) if value_range == "auto" else (0, 65535)
    if stored.dtype == np.uint8:
        low, high = 0, 255
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    expected = np.clip(np.rint((numbers - low) * (255 / (high - low))), 0, 255)
    off = float(np.abs(found.images - expected).max())
    if off > 1:
        raise Wrong(f"{stored.dtype} {stored.shape}: {off:g} grey levels from the array")


# --- lists ----------------------------------------------------------------------------------------

_HEADS = (("path", "label"), ("file_name", "class", "split"), ("image", "species"), ("", ""))


def _list(rng: random.Random, folder: Path) -> None:
    head, cut = rng.choice(_HEADS), rng.choice(",;\t")
    pictures = _Pictures.made(rng, 6)
    rows = [list(head)] if any(head) else []
    for i, blob in enumerate(pictures.blobs):
        inside = f"{rng.choice(('', 'images/'))}{i}{pictures.samples[i].suffix}"
        (folder / "images").mkdir(exist_ok=True)
        (folder / inside).write_bytes(blob)
        shown = inside.removeprefix("images/") if rng.random() < 0.5 else inside
        rows.append(
            [shown, rng.choice(("cat", "dog", "=1", "", "7")), rng.choice(("train", "Test", "fold 1"))][
                : len(head)
            ]
        )
    stream = io.StringIO()
    csv.writer(stream, delimiter=cut).writerows(rows)
    file = folder / f"list.{rng.choice(('csv', 'tsv'))}"
    file.write_bytes(rng.choice((b"", b"\xef\xbb\xbf")) + mutated(rng, stream.getvalue().encode()))
    name = f"{file.suffix[1:]}:{file}"
    for split in data.splits(name):
        found = _load(name, split)
        files = [one.read_bytes() for one in folder.rglob("*.*") if one != file]
        blobs = _compare(found, _by_hash(files), pictures)
        _compare_list(file, cut, head, found, split, blobs)


def _compare_list(
    file: Path, cut: str, head: tuple[str, ...], found: data.ImageSet, split: str, blobs: list[bytes]
) -> None:
    """Compares with the rows by Python's csv, where the first line is as it was written."""
    text = as_text(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    table = [
        [cell.strip() for cell in row]
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=cut)
        if any(row)
    ]
    if any(head):
        if table[0] != list(head):
            return
        table = table[1:]
    elif text.partition("\n")[0].count(cut) != 1 or "." not in table[0][0]:  # may be names of columns
        return
    if any(len(row) < 2 for row in table):
        return  # the first column alone is taken
    if len(head) == 3:
        if {row[2] for row in table} - {"train", "Test", "fold 1", ""}:
            return  # other words may mean a split
        table = [row for row in table if data.splits(f"csv:{file}") and _split(row[2]) == split]
    for row, blob in enumerate(blobs):
        path, label = table[_row(found.ids[row])][:2]
        places = [file.parent / path, file.parent / "images" / path]
        places += [Path(f"{one}{suffix}") for one in places for suffix in readable().suffixes]
        if not any(one.is_file() and one.read_bytes() == blob for one in places):
            raise Wrong(f"{found.ids[row]}: another file than {path!r}")
        same(found.label_name(row), writable(label) or "unlabelled", found.ids[row])


def _split(text: str) -> str:
    return {"train": "train", "Test": "test", "": "all"}.get(text, writable(text))


KINDS = {
    "Parquet": Kind(_parquet, (DataError,)),
    "NumPy": Kind(_arrays, (DataError,)),
    "list of pictures": Kind(_list, (DataError,)),
}
