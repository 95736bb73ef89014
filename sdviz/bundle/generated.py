"""The images that a bundle carries: made from noise by its U-Net, for machines without its training images."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..data import ImageSet
from .core import Bundle

# the set of images, whose ids begin with its name, and the set of one SD outlier of each
GENERATED, GENERATED_OUTLIERS = "generated", "generated-outliers"
# One row per picture: set, role, id, told (the label it was made under), cluster (y~ by the clusterer, of an
# outlier that of its source), confidence (of y~, 0..1), target_label (c_r of an outlier, else -1), png; and, if
# the run has a detector, distance, votes and total (Eq. 6)
TABLE = "generated.parquet"
# float16 features by the detector, under the names of the sets, and logits of its heads, as "generated.g_in"
FEATURES = "generated.safetensors"


def has_generated(bundle: Bundle) -> bool:
    """Whether the bundle carries generated images."""
    return TABLE in bundle.parts


def generated_images(bundle: Bundle) -> ImageSet:
    """Reads the generated images of a bundle that has some; labels are those that they were made under."""
    table = pq.read_table(bundle.parts[TABLE], filters=[("set", "=", GENERATED)])
    return ImageSet(
        GENERATED,
        "all",
        decode_pngs(table["png"].to_pylist()),
        table["told"].to_numpy().astype(np.int64),
        np.array(table["id"].to_pylist(), str),
        bundle.class_names,
    )


def decode_pngs(blobs: Sequence[bytes]) -> np.ndarray:
    """Decodes PNG files of one size: uint8 (N,H,W,3)."""
    return np.stack([decode_png(one) for one in blobs])


def decode_png(blob: bytes) -> np.ndarray:
    """Decodes a PNG file: uint8 (H,W,3)."""
    with Image.open(io.BytesIO(blob), formats=["PNG"]) as picture:
        return np.asarray(picture.convert("RGB"))


def encode_pngs(images: np.ndarray) -> pa.Array:
    """Encodes images uint8 (N,H,W,3) as PNG files, as small as Pillow makes them: a binary column."""
    blobs = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", optimize=True)
        blobs.append(stream.getvalue())
    return pa.array(blobs, pa.binary())
