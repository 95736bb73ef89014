from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sdviz.config.tree import JpegConfig
from sdviz.pipeline import (
    PipelineError,
    Workspace,
    run_stages,
)
from sdviz.pipeline.outliers import read_outliers
from sdviz.pipeline.shared.shards import reencode
from tests.stages import begun, everything_in

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_lost_shard_is_made_again_to_the_byte(copied: Workspace) -> None:
    folder = copied.folder / "outliers"
    before = everything_in(folder)
    whole = sorted((folder / "wrong").iterdir())
    untouched = whole[0].stat().st_mtime_ns
    whole[1].unlink()
    whole[2].write_bytes(whole[2].read_bytes()[:-9])
    with pytest.raises(
        PipelineError, match=f"{whole[1].name} is missing: remove .*outliers.done.json and resume"
    ):
        read_outliers(copied, "wrong")
    (copied.folder / "outliers.done.json").unlink()
    assert begun(copied)[3] == ("outliers", False)
    assert everything_in(folder) == before
    assert whole[0].stat().st_mtime_ns == untouched


def test_shards_do_not_depend_on_how_many_stops_there_were(copied: Workspace) -> None:
    before = everything_in(copied.folder / "outliers")
    shutil.rmtree(copied.folder / "outliers")
    (copied.folder / "outliers.done.json").unlink()
    for _ in range(3):
        asked = iter([False, False])  # before the stage and before its first shard
        stopping = replace(copied, should_stop=lambda asked=asked: next(asked, True))
        assert not run_stages(stopping)
    assert len(list((copied.folder / "outliers").rglob("*.safetensors"))) == 3
    run_stages(copied, until="outliers")
    assert everything_in(copied.folder / "outliers") == before


def test_reencoding_is_one_round_of_pillows_jpeg(tiny_images: Callable[..., np.ndarray]) -> None:
    images = tiny_images(3, 16)
    images[0] = 90
    for quality, subsampling, code in ((60, "4:2:0", 2), (95, "4:4:4", 0)):
        made = reencode(images, JpegConfig(quality=quality, subsampling=subsampling))  # type: ignore[arg-type]
        assert (made.shape, made.dtype) == (images.shape, np.uint8)
        for i in range(3):
            stream = io.BytesIO()
            Image.fromarray(images[i]).save(stream, "JPEG", quality=quality, subsampling=code)
            assert (made[i] == np.asarray(Image.open(stream))).all()
        assert np.abs(made[0].astype(int) - 90).max() <= 1
        assert (made[1] != images[1]).any()
