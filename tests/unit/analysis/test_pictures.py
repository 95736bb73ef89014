from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sdviz.analysis import Evidence, PictureLibrary, pictures
from sdviz.analysis.pictures import without_wordnet_id
from sdviz.analysis.tables import OutlierTable
from sdviz.bundle.generated import decode_pngs
from sdviz.data.decode import through_jpeg


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("n09428293 seashore, coast", "seashore, coast"),
        ("n09428293", "n09428293"),
        ("cat", "cat"),
        ("n12 cat", "n12 cat"),
    ],
)
def test_a_class_name_is_readable_text(name: str, texts: str) -> None:
    assert without_wordnet_id(name) == texts


def test_pictures_of_images_and_outliers(evidence: Evidence) -> None:
    library = PictureLibrary(evidence)
    ids = [
        evidence.id_set.ids[3],
        evidence.outliers.ids[0],
        "nothing/here/1",
        evidence.ood_sets["digits"].ids[0],
    ]
    shown = library.show(ids)
    assert shown.found.tolist() == [True, True, False, True]
    assert len(shown.missing) == 1 and "nothing" in shown.missing[0]
    assert shown.class_names[1] == "" and shown.class_names[0] != ""
    assert library.outlier_row(str(ids[1])) == 0 and library.outlier_row(str(ids[0])) is None
    assert np.array_equal(library.show(ids).images, shown.images)


def test_the_last_pictures_used_stay_up_to_a_number_of_bytes(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "KEPT_BYTES", 3 * 32 * 32 * 3)
    library, ids = PictureLibrary(evidence), evidence.outliers.ids[:5].tolist()
    assert library.show(ids).found.all(), "more than are kept"
    library.show([ids[2]])  # used once more
    library.show([ids[0]])
    assert set(library._kept) == {ids[4], ids[2], ids[0]}


def test_an_outlier_without_a_picture_is_made_again_as_it_was(evidence: Evidence) -> None:
    with_png = PictureLibrary(evidence).show(evidence.outliers.ids[:3]).images
    table = evidence.outliers.table
    bare = Evidence(evidence.bundle)
    bare.__dict__["outliers"] = type(evidence.outliers)(
        evidence.outliers.ids,
        evidence.outliers.source_ids,
        evidence.outliers.labels,
        evidence.outliers.target_labels,
        table.drop_columns(["png"]),
    )
    again = PictureLibrary(bare).show(evidence.outliers.ids[:3]).images
    # bfloat16 rounds otherwise on another machine, and guidance of w = 4 makes nine times as much of it
    assert np.abs(again.astype(int) - with_png.astype(int)).mean() < 4.0
    sources = PictureLibrary(evidence).show(evidence.outliers.source_ids[:3]).images
    assert np.abs(again.astype(int) - sources.astype(int)).mean() > 6.0


def bare(evidence: Evidence, sources: np.ndarray, config: dict[str, Any] | None = None) -> Evidence:
    """The same outliers without their pictures, made of other sources."""
    whole, bundle = evidence.outliers, evidence.bundle
    if config is not None:
        bundle = copy.copy(bundle)
        bundle.manifest = bundle.manifest.model_copy(update={"config": config})
    new = Evidence(bundle)
    table = whole.table.drop_columns(["png"])
    new.__dict__["outliers"] = OutlierTable(whole.ids, sources, whole.labels, whole.target_labels, table)
    return new


def test_an_outlier_made_again_goes_through_the_jpeg_of_its_recipe(evidence: Evidence) -> None:
    table = evidence.outliers
    ids = table.ids[:3]
    plain = PictureLibrary(bare(evidence, table.source_ids)).show(ids).images
    settings = {"quality": 40, "subsampling": "4:2:0"}
    coded = bare(evidence, table.source_ids, {"outliers": {"jpeg": settings}})
    again = PictureLibrary(coded).show(ids).images
    assert np.array_equal(again, through_jpeg(plain, 40, "4:2:0")) and not np.array_equal(again, plain)


def test_what_is_not_here_says_how_to_get_it_once_a_split(evidence: Evidence, data_root: Path) -> None:
    table = evidence.outliers
    sources = np.array([f"cifar10/train/{i:05d}" for i in range(len(table.ids))])
    library = PictureLibrary(bare(evidence, sources))
    shown = library.show([*table.ids[:5], "cifar10/test/00001", "photos/all/3", "photos/all/4"])
    assert not shown.found.any() and np.unique(shown.images).tolist() == [127]
    assert shown.missing == (
        "cifar10 (test) is not on this machine",
        "photos (all) is not on this machine",
        "cifar10 (train) is not on this machine",
    )
    fetch = "`python -m sdviz download cifar10` fetches it"
    put = f"put `photos.parquet` in `{data_root}`, or in another `SDVIZ_DATA`"
    # the sources of outliers come last
    assert shown.ways == (
        ("cifar10", "test", fetch, True),
        ("photos", "all", put, True),
        ("cifar10", "train", fetch, True),
    )
    assert tuple(way.reason for way in shown.ways) == shown.missing
    # what no set is called, and what has no file under the data root, has no way
    for one in ("*a*/[b](c)/1", "shapes/train/99999999", "nothing", "folder/x/y.png@0"):
        assert library.show([one]).ways == ()


def test_generated_images_and_their_outliers_come_from_the_bundle(
    carrying: tuple[Evidence, pd.DataFrame],
) -> None:
    evidence, table = carrying
    library, some = PictureLibrary(evidence), table.iloc[[3, 25]]
    assert not any(map(library.must_generate, some["id"]))
    shown = library.show(some["id"].tolist())
    assert shown.found.all() and not shown.missing and shown.class_names.tolist() == ["", ""]
    assert np.array_equal(shown.images, decode_pngs(some["png"].tolist(), 32))
