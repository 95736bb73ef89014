from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdviz.analysis import Evidence
from sdviz.analysis.points import available_sets
from sdviz.analysis.stored_layouts import (
    FOLDER,
    View,
    file_of,
    find_stored,
    store_usual_layouts,
    usual_sets,
    usual_views,
)
from sdviz.bundle import Bundle
from sdviz.projection import Layouts, LayoutSettings, compute_layouts, write_layouts


@pytest.fixture
def evidence(scored_run: Path, tmp_path: Path) -> Evidence:
    folder = tmp_path / "bundles" / "one"
    shutil.copytree(scored_run / "bundle", folder)
    return Evidence(Bundle.load(folder, device="cpu"))


def test_the_usual_layouts_are_made_once_and_found(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[np.ndarray] = []

    def by_pca(features: np.ndarray, how: LayoutSettings) -> object:
        wanted.append(features)
        return compute_layouts(features, LayoutSettings("pca", how.dims))

    monkeypatch.setattr("sdviz.analysis.stored_layouts.compute_layouts", by_pca)
    told: list[tuple[View, Path, bool]] = []
    store_usual_layouts(evidence, lambda *one: told.append(one))
    assert {one.layout.method for one, _, _ in told} == {"tsne", "umap"}
    assert {one.through for one, _, _ in told} == {True, False}
    assert all(now for _, _, now in told) and len(told) == len(wanted)
    assert sorted(path for _, path, _ in told) == sorted((tmp_path / "bundles" / FOLDER).iterdir())
    for (view, _, _), features in zip(told, wanted, strict=True):
        points = view.points(evidence)
        found = find_stored(evidence, points, view.unit_length, view.layout)
        assert found is not None
        assert np.array_equal(found.points, compute_layouts(features, LayoutSettings("pca")).points)
        # the bundle is left as it is: a foreign file in it would be refused
        assert Bundle.load(evidence.bundle.path, device="cpu").hash == evidence.bundle.hash
    again: list[bool] = []
    store_usual_layouts(evidence, lambda view, path, now: again.append(now))
    assert again == [False] * len(told) and len(wanted) == len(told)


def test_layouts_of_epochs_that_are_the_same_are_found_as_one(evidence: Evidence) -> None:
    view = next(usual_views(evidence))
    points = view.points(evidence)
    file = file_of(evidence, points, view.unit_length, view.layout)
    assert file is not None and not points.same_in
    layouts = compute_layouts(points.features, LayoutSettings("pca"))
    still = replace(points, frames=("every epoch",), features=points.features[-1:], same_in=points.frames)
    write_layouts(file, Layouts(layouts.points[-1:], layouts.trust[-1:], layouts.explained[-1:]))
    found = find_stored(evidence, still, view.unit_length, view.layout)
    assert found is not None and np.array_equal(found.points, layouts.points[-1:])
    # a file with a layout for every epoch is none for these points
    write_layouts(file, layouts)
    assert find_stored(evidence, still, view.unit_length, view.layout) is None


@pytest.mark.parametrize("other", [{"seed": 1}, {"dims": 3}, {"perplexity": 31.0}, {"method": "umap"}])
def test_other_settings_images_or_features_are_not_found(evidence: Evidence, other: dict[str, object]) -> None:
    view = next(usual_views(evidence))
    points = view.points(evidence)
    file = file_of(evidence, points, view.unit_length, view.layout)
    assert file is not None
    write_layouts(file, compute_layouts(points.features, LayoutSettings("pca")))
    assert find_stored(evidence, points, view.unit_length, view.layout) is not None
    assert find_stored(evidence, points, view.unit_length, replace(view.layout, **other)) is None  # type: ignore[arg-type]
    assert find_stored(evidence, points, not view.unit_length, view.layout) is None
    fewer = replace(view, n=12).points(evidence)
    assert len(fewer) < len(points)
    assert find_stored(evidence, fewer, view.unit_length, view.layout) is None


def test_a_setting_that_a_method_ignores_makes_no_other_layout(evidence: Evidence) -> None:
    view = next(usual_views(evidence))
    points = view.points(evidence)
    files = {file_of(evidence, points, True, LayoutSettings("tsne", n_neighbors=n)) for n in (5, 15)}
    assert len(files) == 1


def test_a_cut_file_or_one_of_another_shape_is_as_none(evidence: Evidence) -> None:
    view = next(usual_views(evidence))
    points = view.points(evidence)
    file = file_of(evidence, points, view.unit_length, view.layout)
    assert file is not None
    write_layouts(file, compute_layouts(points.features[:, :9], LayoutSettings("pca")))
    assert find_stored(evidence, points, view.unit_length, view.layout) is None
    file.write_bytes(file.read_bytes()[:99])
    assert find_stored(evidence, points, view.unit_length, view.layout) is None
    told: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sdviz.analysis.stored_layouts.compute_layouts",
            lambda features, how: compute_layouts(features, LayoutSettings("pca", how.dims)),
        )
        store_usual_layouts(evidence, lambda one, path, now: told.append(now))
    assert told[0]
    assert find_stored(evidence, points, view.unit_length, view.layout) is not None


@pytest.mark.parametrize("name", ["shapes", "cifar10"])
def test_a_shipped_bundle_opens_with_its_stored_layouts(name: str) -> None:
    folder = Path(__file__).resolve().parents[3] / "checkpoints" / name
    shipped = Evidence(Bundle.load(folder, device="cpu"))
    views = list(usual_views(shipped))
    assert len(views) >= 4
    for view in views:
        points = view.points(shipped)
        assert find_stored(shipped, points, view.unit_length, view.layout) is not None, view


def test_views_of_generated_images_are_stored_too(carrying: tuple[Evidence, pd.DataFrame]) -> None:
    found = carrying[0]
    stand_ins = ("shapes-novel", "shapes-empty", "digits", "generated", "generated-outliers")
    views = [view for view in usual_views(found) if view.sets == stand_ins]
    assert [(view.through, view.layout.method) for view in views] == [(False, "tsne"), (False, "umap")]
    assert usual_sets(found, available_sets(found, False)) == list(stand_ins)
