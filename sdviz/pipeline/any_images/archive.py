"""Packs a folder of outliers into one file that can be used without sdviz, with checksums."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from PIL import Image

from ...bundle.manifest import sha256
from ...files import replacing, write_atomically
from ...outliers import read_manifest
from ...table_files import write_parquet
from ..workspace import PipelineError
from .generate_folder import MANIFEST, RECIPE

Format: TypeAlias = Literal["folder", "npz", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
CHECKSUMS = "SHA256SUMS"
PACKED = "outliers"


def pack_folder(out: Path, form: Format, class_names: tuple[str, ...]) -> tuple[Path, ...]:
    """Packs what `generate_folder` made, and writes `SHA256SUMS`; returns the files written.

    - "npz": outliers.npz with `images` uint8 (N,H,W,3), `labels` int64 (N,), the cluster of each source,
      `target_labels` int64 (N,), the wrong label it was given, `source_ids` str (N,) and `class_names`.
    - "parquet": outliers.parquet in the Hugging Face image layout: `image` struct{bytes, path}, `label`,
      `target_label`, `source_id`, with the class names in its metadata.
    - "folder": packs nothing.

    The rows are those of manifest.csv, in its order. A packed file of an earlier call is written anew, whatever
    `form` is. `sha256sum -c SHA256SUMS` checks the PNGs, the packed files, manifest.csv and recipe.json.

    Raises:
        PipelineError: The manifest, or a PNG that it names, is missing.
    """
    try:
        rows = read_manifest(out / MANIFEST)
        blobs = [(out / row["file"]).read_bytes() for row in rows]
    except (OSError, KeyError, ValueError) as error:
        raise PipelineError(f"{out} cannot be packed: {error}") from error
    packed: list[Path] = []
    for kind, pack in _PACKERS.items():
        path = out / f"{PACKED}.{kind}"
        if form == kind or path.is_file():
            pack(path, rows, blobs, class_names)
            packed.append(path)
    sums = [(hashlib.sha256(blob).hexdigest(), row["file"]) for row, blob in zip(rows, blobs, strict=True)]
    sums += [(sha256(path), path.name) for path in (*packed, out / MANIFEST, out / RECIPE) if path.is_file()]
    write_atomically(out / CHECKSUMS, "".join(f"{digest}  {name}\n" for digest, name in sums))
    return (*packed, out / CHECKSUMS)


def _npz(path: Path, rows: list[dict[str, Any]], blobs: list[bytes], class_names: tuple[str, ...]) -> None:
    images = [np.asarray(Image.open(io.BytesIO(blob), formats=["PNG"]).convert("RGB")) for blob in blobs]
    arrays = {
        "images": np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8),
        "labels": np.array([row["label"] for row in rows], np.int64),
        "target_labels": np.array([row["target_label"] for row in rows], np.int64),
        "source_ids": np.array([row["source_id"] for row in rows], dtype=str),
        "class_names": np.array(class_names, dtype=str),
    }
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _parquet(path: Path, rows: list[dict[str, Any]], blobs: list[bytes], class_names: tuple[str, ...]) -> None:
    pictures = [{"bytes": blob, "path": row["file"]} for row, blob in zip(rows, blobs, strict=True)]
    table = pa.table(
        {
            "image": pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array([row["label"] for row in rows], pa.int64()),
            "target_label": pa.array([row["target_label"] for row in rows], pa.int64()),
            "source_id": pa.array([row["source_id"] for row in rows], pa.string()),
        }
    ).replace_schema_metadata({"class_names": json.dumps(class_names)})
    write_parquet(table, path)


_PACKERS = {"npz": _npz, "parquet": _parquet}
