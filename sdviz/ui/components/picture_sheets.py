"""Sheets of small pictures for the hover card of the scatter plot, sent to the browser once."""

import base64
import io

import numpy as np
from PIL import Image

from sdviz.ui.assets import component

TILES_A_ROW = 40
TILES_A_SHEET = 2_000
_JPEG_QUALITY = 90


def picture_sheet(images: np.ndarray) -> bytes:
    """Encodes up to `TILES_A_SHEET` pictures, uint8 (N,H,W,3), in rows of `TILES_A_ROW`, as a JPEG."""
    n, high, wide = images.shape[:3]
    rows = -(-n // TILES_A_ROW)
    sheet = np.zeros((rows * TILES_A_ROW, high, wide, 3), np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(rows, TILES_A_ROW, high, wide, 3).transpose(0, 2, 1, 3, 4)
    stream = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * high, TILES_A_ROW * wide, 3)).save(
        stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0
    )
    return stream.getvalue()


def send_pictures(name: str, number: int, sheet: bytes, side: int, *, key: str) -> None:
    """Sends sheet `number` of the pictures `name`, see `scatter`, to the browser. Shows nothing."""
    src = "data:image/jpeg;base64," + base64.b64encode(sheet).decode("ascii")
    component(__name__)(key=key, data={"name": f"{name}/{number}", "src": src, "side": side})
