from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sdviz.ui.components.picture_sheets import TILES_A_ROW, picture_sheet


def test_pictures_stand_in_rows_of_a_sheet() -> None:
    grey = np.arange(TILES_A_ROW + 2, dtype=np.uint8) * 5
    images = np.broadcast_to(grey[:, None, None, None], (len(grey), 8, 8, 3))
    with Image.open(io.BytesIO(picture_sheet(images))) as sheet:
        pixels = np.asarray(sheet).astype(int)
    assert pixels.shape == (16, 8 * TILES_A_ROW, 3)
    for i, value in enumerate(grey):
        row, column = divmod(i, TILES_A_ROW)
        tile = pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert abs(tile - int(value)).max() <= 6
