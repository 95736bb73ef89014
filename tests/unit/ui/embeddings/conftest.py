from __future__ import annotations

import pytest

from sdviz.analysis import Evidence, PictureLibrary
from sdviz.analysis.stored_layouts import View
from sdviz.bundle import Bundle
from sdviz.projection import Layouts, LayoutSettings, compute_layouts
from sdviz.ui.embeddings.state import Known, known_of
from tests.cut_bundle import save_cut_bundle


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    bundle = Bundle.load(save_cut_bundle(tmp_path_factory.mktemp("cut") / "b", n_id=60, n_per_set=20), "cpu")
    evidence = Evidence(bundle)
    sets = ("train", "test", "digits", "SD outliers")
    return known_of(evidence, PictureLibrary(evidence), View(False, sets, 500, True, LayoutSettings()))


@pytest.fixture(scope="module")
def layouts(known: Known) -> Layouts:
    return compute_layouts(known.points.features, LayoutSettings("pca"))
