from __future__ import annotations

import numpy as np
import pytest

from sdviz.analysis import Evidence, PictureLibrary
from sdviz.bundle import Bundle
from sdviz.evaluation import read_report
from sdviz.pipeline import Workspace
from sdviz.pipeline.sd_test import read_sd_test

pytestmark = pytest.mark.usefixtures("one_thread")


def test_outliers_of_held_out_images_are_a_set_of_their_own(compared: Workspace) -> None:
    made = read_sd_test(compared)
    assert compared.test is not None
    held_out = dict(zip(compared.test.ids.tolist(), compared.test.images, strict=True))
    assert len(made) == 3
    for one, picture in zip(made.ids.tolist(), made.images, strict=True):
        source = held_out[one.rpartition("~")[0]]
        assert (source != picture).any()
        assert np.abs(source.astype(int) - picture).mean() < 100
    report = read_report(compared.folder / "bundle" / "report.json")
    assert report.results["sd-outliers"].role == "sd"
    assert report.means["sd"]["both"].auroc == report.results["sd-outliers"].modes["both"].auroc


def test_pages_make_outliers_of_held_out_images_again(compared: Workspace) -> None:
    made = read_sd_test(compared)
    bundle = Bundle.load(compared.folder / "bundle", "cpu")
    library = PictureLibrary(Evidence(bundle))
    assert all(map(library.must_generate, made.ids.tolist()))
    pictures = library.show(made.ids)
    assert pictures.found.all() and not pictures.missing
    assert not any(map(library.must_generate, made.ids.tolist()))
    assert np.abs(pictures.images.astype(int) - made.images).mean() < 1
    gone = PictureLibrary(Evidence(bundle)).show(["folder/nowhere/0.png~0"])
    assert not gone.found.any() and gone.missing
