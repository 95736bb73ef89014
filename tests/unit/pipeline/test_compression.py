"""Where compression alone tells sets apart, a run says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdviz import runs
from sdviz.config.reading import load_config
from sdviz.data import ImageSet
from sdviz.pipeline import Workspace
from sdviz.pipeline.features import _warn_of_other_compression
from sdviz.pipeline.outliers import warn_of_jpeg
from sdviz.pipeline.sets import NamedSet
from sdviz.runs.work import _log_warnings
from tests.tiny_runs import write_tiny_config


def pictures(folder: Path, suffix: str) -> Path:
    for name, colour in (("blue", (40, 60, 200)), ("red", (210, 50, 60))):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (colour[0] + i, *colour[1:])).save(folder / name / f"{i}{suffix}")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., Workspace]:
    def make(suffix: str, *overrides: str) -> Workspace:
        path = write_tiny_config(tmp_path / "config")
        source = pictures(tmp_path / suffix.strip("."), suffix)
        config = load_config(path, [f"data.id=folder:{source}", *overrides])
        return Workspace(tmp_path, config, lambda progress: None, lambda: False)

    return make


@pytest.mark.parametrize(
    ("suffix", "jpeg", "said"),
    [
        (".jpg", "null", "went through JPEG and outliers.jpeg is not set: the detector can learn 'no JPEG'"),
        (".png", "{}", "did not go through JPEG and outliers.jpeg is set"),
        (".jpg", "{}", None),
        (".png", "null", None),
    ],
)
def test_outliers_that_are_compressed_otherwise_than_id_images(
    work: Callable[..., Workspace], caplog: pytest.LogCaptureFixture, suffix: str, jpeg: str, said: str | None
) -> None:
    warn_of_jpeg(work(suffix, f"outliers.jpeg={jpeg}"))
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("sdviz")]
    assert len(messages) == (said is not None)
    assert said is None or said in messages[0]


def test_an_ood_set_that_is_compressed_otherwise_than_id_images(
    work: Callable[..., Workspace], caplog: pytest.LogCaptureFixture
) -> None:
    ours = work(".jpg")
    plain = np.zeros((2, 8, 8, 3), np.uint8)
    for share in (0.0, 1.0, None):
        labels, ids = np.full(2, -1), np.array(["a", "b"])
        other = ImageSet("svhn", "test", plain, labels, ids, (), share)
        _warn_of_other_compression(ours, NamedSet("svhn", "far", other))
    (record,) = [one for one in caplog.records if one.name.startswith("sdviz")]
    assert "svhn did not go through JPEG: what tells them apart may be compression" in record.getMessage()


def test_warnings_stand_in_the_log_of_the_run_and_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    run = runs.create(load_config(write_tiny_config(tmp_path / "config")))
    logger = logging.getLogger("sdviz.pipeline.outliers")
    with _log_warnings(run):
        logger.warning("the detector can learn %s", "that")
        logger.info("nobody asked")
    logger.warning("after the run")
    log = (run.path / "log.txt").read_text()
    assert log.endswith("warning: the detector can learn that\n") and "nobody" not in log
    assert "warning: the detector can learn that\n" in capsys.readouterr().err
