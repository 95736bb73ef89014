from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sdviz import data
from sdviz.baselines import BASELINES, Images, Reference
from sdviz.baselines.complexity.png_size import png_bits


def test_png_size_measures_files() -> None:
    images = data.load("shapes", "test", limit=4).images
    stream = io.BytesIO()
    Image.fromarray(images[0]).save(stream, "PNG", optimize=True)
    assert png_bits(images)[0] == 8 * len(stream.getvalue()) / (32 * 32 * 3)
    method = BASELINES["png_size"]().fit(Reference(Images(images=images)))
    flat = np.full((1, 32, 32, 3), 90, np.uint8)
    assert method.score(Images(images=flat))[0] > method.score(Images(images=images)).max()
