from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz.data import DataError
from sdviz.pipeline import (
    absolute_source,
)
from tests.stages import work_in
from tests.tiny_runs import write_tiny_detector_config

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_held_out_pictures_stay_held_out_when_one_is_added(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path)

    def parts() -> tuple[set[str], set[str]]:
        work = work_in(tmp_path / "run", config, "data.holdout=0.3")
        assert work.test is not None
        return set(work.images.ids.tolist()), set(work.test.ids.tolist())

    train, test = parts()
    assert len(train) + len(test) == 36 and not train & test
    assert 3 <= len(test) <= 18
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path / "pictures" / "red" / f"a{i}.png")
    train_now, test_now = parts()
    assert train < train_now or test < test_now
    assert train <= train_now and test <= test_now
    assert len(train_now | test_now) == 39
    # without a detector all are trained on
    assert len(work_in(tmp_path / "run", config, "detector=null").images) == 39


def test_too_few_pictures_to_hold_some_out(tmp_path: Path) -> None:
    config = write_tiny_detector_config(tmp_path, n_each=1)
    with pytest.raises(DataError, match=r"3 images are too few to hold out 1e-06 of them for testing"):
        _ = work_in(tmp_path / "run", config, "data.holdout=1e-6").test


def test_absolute_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_source("shapes") == "shapes"
    assert absolute_source("folder:pets") == f"folder:{tmp_path}/pets"
    assert absolute_source("parquet:/a/b.parquet") == "parquet:/a/b.parquet"
    assert absolute_source("folder:") == "folder:"
