"""The images that a bundle carries: made from noise by its U-Net, for machines without its training images."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..data import DataError, ImageSet
from ..data.decode import DecodeError, open_picture
from .core import Bundle
from .manifest import BundleError
from .parts import numbers, reading, texts

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
    """Reads the generated images of a bundle that has some; labels are those that they were made under.

    Raises:
        DataError: Their table cannot be read, or a picture in it.
    """
    try:
        with reading(bundle.parts[TABLE]) as file:
            table = pq.read_table(file, filters=[("set", "=", GENERATED)])
            images = decode_pngs(table["png"].to_pylist(), bundle.manifest.image_size)
            labels, ids = numbers(table["told"], np.int64), texts(table["id"])
            return ImageSet(GENERATED, "all", images, labels, ids, bundle.class_names)
    except BundleError as error:
        raise DataError(error) from error


def decode_pngs(blobs: Sequence[bytes | None], size_px: int) -> np.ndarray:
    """Decodes PNG files, as `decode_png`: uint8 (N,size_px,size_px,3)."""
    images = [decode_png(one, size_px) for one in blobs]
    return np.stack(images) if images else np.empty((0, size_px, size_px, 3), np.uint8)


def decode_png(blob: bytes | None, size_px: int) -> np.ndarray:
    """Decodes a PNG file of a bundle: uint8 (size_px,size_px,3).

    Raises:
        BundleError: It is none, damaged, or of another size.
    """
    try:
        picture = open_picture(blob or b"", ("PNG",), size_px * size_px)
    except DecodeError as error:
        raise BundleError(f"a picture in the bundle {error}") from error
    if picture.stored_size != (size_px, size_px) or not isinstance(picture.pixels, Image.Image):
        raise BundleError(f"a picture in the bundle is not one of 8 bits and {size_px} x {size_px} px")
    return np.asarray(picture.pixels.convert("RGB"))


def encode_pngs(images: np.ndarray) -> pa.Array:
    """Encodes images uint8 (N,H,W,3) as PNG files, as small as Pillow makes them: a binary column."""
    blobs = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", optimize=True)
        blobs.append(stream.getvalue())
    return pa.array(blobs, pa.binary())
