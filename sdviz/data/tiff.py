"""TIFFs that Pillow does not read, as scientific programs write them: half, double, and float colour."""

import zlib
from io import BytesIO

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

STARTS = (b"II*\0", b"MM\0*")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _BANDS, _STRIP_BYTES = 256, 257, 258, 259, 273, 277, 279
_PLANES, _PREDICTOR, _FORMAT = 284, 317, 339
_PLAIN, _DEFLATE = (1,), (8, 32946)
_KINDS = {1: "u", 2: "i", 3: "f"}  # of SampleFormat


def plain_tiff(blob: bytes, max_pixels: int) -> np.ndarray | None:
    """The numbers of a TIFF in strips, uncompressed or deflated: (H,W,C), C 1, 3 or 4; None for any other kind.

    Raises:
        Exception: Of any kind, for a damaged file or one with more pixels.
    """
    stream = BytesIO(blob)
    tags = ImageFileDirectory_v2(stream.read(8))
    stream.seek(tags.next)
    tags.load(stream)
    width, height, bands = tags[_WIDTH], tags[_HEIGHT], tags.get(_BANDS, 1)
    bits, forms = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    packed = tags.get(_COMPRESSION, 1)
    if (
        (len(bits), len(forms)) != (1, 1)
        or bands not in (1, 3, 4)
        or packed not in (*_PLAIN, *_DEFLATE)
        or tags.get(_PREDICTOR, 1) != 1
        or (bands > 1 and tags.get(_PLANES, 1) != 1)
        or _STRIPS not in tags
    ):
        return None
    (depth,), (form,) = bits, forms
    if form not in _KINDS or depth not in (16, 32, 64):
        return None
    if not 0 < width * height <= max_pixels:
        raise ValueError("too many pixels")
    n_bytes = width * height * bands * depth // 8
    parts, left = [], n_bytes
    for start, size in zip(tags[_STRIPS], tags[_STRIP_BYTES], strict=True):
        part = blob[start : start + size]
        if packed in _DEFLATE and left > 0:
            part = zlib.decompressobj().decompress(part, left)
        parts.append(part[:left])
        left -= len(parts[-1])
    order = "<" if blob.startswith(STARTS[0]) else ">"
    numbers = np.frombuffer(b"".join(parts), f"{order}{_KINDS[form]}{depth // 8}", width * height * bands)
    return numbers.reshape(height, width, bands)
