"""A bundle whose own data set is not on this machine, and one whose set has come meanwhile."""

from __future__ import annotations

import base64
import io
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sdviz.bundle.from_noise import images_from_noise
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.analysis.pictures import Way, way_to_get
from sdviz.bundle import Bundle
from sdviz.ui.lab.own_set import FROM_NOISE
from sdviz.ui.missing import missing_lines
from tests.cut_bundle import change_table
from tests.patience import patience

LAB = "pages/1_Outlier_lab.py"
Open = Callable[..., AppTest]
Shipped = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


def texts(at: AppTest) -> str:
    return " | ".join(c.value for c in at.caption)


def bars(at: AppTest) -> str:
    return " | ".join(one.proto.text for one in at.get("progress"))


def grid_of(at: AppTest, component_data: Read) -> dict[str, Any]:
    (grid,) = [d for d in component_data(at) if d.get("row_names") and d["row_names"][1]["text"] == "outlier"]
    return grid


def picture(cell: dict[str, Any]) -> np.ndarray:
    raw = base64.b64decode(cell["src"].split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(raw)))


def until(at: AppTest, what: Callable[[], bool]) -> None:
    """Runs the page again and again, as its polling does, until `what` holds."""
    end = time.monotonic() + patience(60)
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)
        at.run()
        assert not at.exception, at.exception


def write_set(root: Path, name: str, n: int = 12) -> np.ndarray:
    """A Parquet set of random images, of the bundle's ten classes; returns them."""
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    blobs = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        blobs.append({"bytes": stream.getvalue(), "path": None})
    table = pa.table({"image": pa.array(blobs), "label": pa.array([i % 10 for i in range(n)])})
    pq.write_table(table, root / f"{name}_test.parquet")
    return images


def test_images_from_noise_stand_in_and_are_marked(
    shipped: Shipped, open_page: Open, component_data: Read, files: dict[str, Callable[[], bytes]]
) -> None:
    folder = shipped(max_s=1000, dataset="photos")
    at = open_page(LAB, {"view": "Download"})
    until(at, lambda: bool(component_data(at)) and bool(at.metric))
    assert at.selectbox(key="data").value == FROM_NOISE
    assert "`photos` is not on this machine: put `photos.parquet` in" in texts(at)
    assert "Until then its network makes images from noise alone" in texts(at)
    assert not [b for b in at.button if b.key == "download_set"]
    grid = grid_of(at, component_data)
    assert (grid["columns"], len(grid["cells"])) == (6, 30)
    # 1. they are what the network makes of noise, and nothing else
    bundle = Bundle.load(folder, "cpu")
    made = images_from_noise(bundle, 4)
    row_of = {one: row for row, one in enumerate(made.ids.tolist())}
    for cell in grid["cells"][:6]:
        row = row_of[cell["alt"].split(", ")[-1]]
        assert np.abs(picture(cell).astype(int) - made.images[row].astype(int)).mean() < 1
    # 2. marked as such above, beside and in what is taken away
    assert all(head["text"].startswith("generated: ") for head in grid["column_names"])
    assert all("taken for " in head["small"] and "sure" in head["small"] for head in grid["column_names"])
    assert grid["row_names"][0]["text"] == "generated" and "no real image" in grid["row_names"][0]["small"]
    assert all(cell["alt"].startswith("generated: ") for cell in grid["cells"][:6])
    assert not any("original" in cell["alt"] for cell in grid["cells"])
    assert "generated the images from noise" in texts(at)
    with zipfile.ZipFile(io.BytesIO(files["sdviz-outliers.zip"]())) as archive:  # type: ignore[arg-type]
        assert "generated/00.png" in archive.namelist()
        assert b"from-noise/" in archive.read("manifest.csv")
    assert Image.open(io.BytesIO(files["sdviz-outliers.png"]())).size[0] > 0  # type: ignore[arg-type]
    # 3. by class, by hand, in every view
    at.selectbox(key="class").select("cross").run()
    heads = grid_of(at, component_data)["column_names"]
    assert [head["text"] for head in heads] == ["generated: cross"] * 4
    for view in ("Scrub S", "S x w sheet", "Trajectory"):
        at.segmented_control(key="view").set_value(view).run()
        assert not at.exception
        assert "generated from noise" in texts(at)
        assert not [
            d for d in component_data(at) if any(p["name"] == "original" for p in d.get("panels") or [])
        ]


def test_without_a_clusterer_they_are_taken_for_what_they_were_told(
    shipped: Shipped, open_page: Open, component_data: Read
) -> None:
    shipped(max_s=1000, dataset="photos", clusterer=False)
    at = open_page(LAB)
    until(at, lambda: any(d.get("row_names") for d in component_data(at)))
    for head in grid_of(at, component_data)["column_names"]:
        assert head["small"] == "taken for " + head["text"].removeprefix("generated: ")
    assert not at.error


def test_a_network_of_a_part_of_the_schedule_says_why_none_is_there(
    shipped: Shipped, open_page: Open, component_data: Read
) -> None:
    shipped(max_s=200, dataset="photos")
    at = open_page(LAB)
    assert FROM_NOISE not in at.selectbox(key="data").options
    assert at.selectbox(key="data").value == "shapes"
    assert "knows noise up to S = 200 of 1000 only and makes no image from noise alone" in texts(at)
    assert grid_of(at, component_data)["row_names"][0]["text"] == "original"
    for name in (*data.BUILT_IN, "your own upload"):
        at.selectbox(key="data").select(name).run()
        assert not at.exception


@pytest.mark.parametrize("max_s", [200, 1000])
def test_where_the_set_is_there_it_is_shown_and_nothing_is_said(
    shipped: Shipped, open_page: Open, component_data: Read, tmp_path: Path, max_s: int
) -> None:
    images = write_set(tmp_path / "sdviz_data", "photos")
    shipped(max_s=max_s, dataset="photos")
    at = open_page(LAB, {"data": "photos"})
    assert at.selectbox(key="data").value == "photos"
    assert FROM_NOISE not in at.selectbox(key="data").options
    assert "not on this machine" not in texts(at)
    cell = grid_of(at, component_data)["cells"][0]
    assert np.array_equal(picture(cell), images[int(cell["alt"].rpartition("/")[2])])


def test_a_set_that_comes_while_the_page_is_open_takes_the_place(
    shipped: Shipped, open_page: Open, component_data: Read, tmp_path: Path
) -> None:
    shipped(max_s=1000, dataset="photos")
    at = open_page(LAB)
    until(at, lambda: any(d.get("row_names") for d in component_data(at)))
    write_set(tmp_path / "sdviz_data", "photos")
    at.run()
    assert not at.exception
    assert at.selectbox(key="data").value == "photos"
    assert grid_of(at, component_data)["row_names"][0]["text"] == "original"


def test_a_download_that_fails_is_one_line_and_leaves_nothing(
    shipped: Shipped, open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(name: str, root: Path) -> None:
        (root / "cifar-10-python.tar.gz").write_bytes(b"a part")
        raise data.DataError(f"{name} could not be downloaded to {root}: no\nnetwork")

    monkeypatch.setattr(data, "download", no_network)
    root = tmp_path / "new" / "data"
    monkeypatch.setenv("SDVIZ_DATA", str(root))
    shipped(dataset="cifar10")
    at = open_page(LAB)
    assert "`python -m sdviz download cifar10` fetches it" in texts(at)
    at.button(key="download_set").click().run()
    until(at, lambda: bool(at.error))
    (error,) = at.error
    assert error.value == f"cifar10 could not be downloaded to {root}: no network"
    assert not root.exists() and not root.parent.exists()
    assert not at.button(key="download_set").disabled
    assert at.selectbox(key="data").value == "shapes"


def test_without_a_network_the_line_says_so(
    shipped: Shipped, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(name: str, root: Path) -> None:
        raise data.DataError("lost on the way") from URLError("Name or service not known")

    monkeypatch.setattr(data, "download", no_network)
    shipped(dataset="cifar10")
    at = open_page(LAB)
    at.button(key="download_set").click().run()
    until(at, lambda: bool(at.error))
    assert "its server cannot be reached. Is there a network?" in at.error[0].value


def test_a_download_brings_the_set_and_the_lab_shows_it(
    shipped: Shipped, open_page: Open, component_data: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, gate = tmp_path / "sdviz_data", tmp_path / "gate"

    def fetch(name: str, folder: Path) -> None:
        (folder / "cifar-10-python.tar.gz").write_bytes(b"x" * 2_000_000)
        while not gate.exists():
            time.sleep(0.05)
        write_set(folder, name)

    monkeypatch.setattr(data, "download", fetch)
    shipped(dataset="cifar10")
    at = open_page(LAB)
    at.button(key="download_set").click().run()
    assert at.button(key="download_set").disabled
    until(at, lambda: "Downloading cifar10: 2 of 170 MB" in bars(at))
    gate.touch()
    until(at, lambda: at.selectbox(key="data").value == "cifar10")
    assert [path.name for path in root.iterdir()] == ["cifar10_test.parquet"]
    assert not [b for b in at.button if b.key == "download_set"]
    assert grid_of(at, component_data)["cells"][0]["alt"].startswith("original: ")


def test_read_only_offers_no_download(
    shipped: Shipped, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDVIZ_READ_ONLY", "1")
    shipped(dataset="cifar10")
    at = open_page(LAB)
    assert "`python -m sdviz download cifar10` fetches it" in texts(at)
    assert not [b for b in at.button if b.key == "download_set"]


@pytest.fixture
def without_pictures(full_bundle: Callable[..., Path]) -> Path:
    """A full bundle of a set that is not here: no outlier has its picture in it, only its recipe."""
    folder = full_bundle(sets=("digits", "shapes-empty"))
    change_table(folder, "outliers.parquet", lambda t: t.assign(png=None, source_id=_renamed(t["source_id"])))
    for name in ("features.parquet", "pseudo_labels.parquet", "scores.parquet", "snapshots.parquet"):
        change_table(folder, name, lambda t: t.assign(id=_renamed(t["id"])))
    return folder


def _renamed(ids: pd.Series[str]) -> pd.Series[str]:
    return ids.str.replace("^shapes/", "cifar10/", regex=True)


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("pages/2_Pseudo_labels.py", {}),
        ("pages/3_Embeddings.py", {"embeddings_method": "PCA", "embeddings_view": "After training"}),
        ("pages/3_Embeddings.py", {"embeddings_method": "PCA"}),
        ("pages/4_Sample_votes.py", {}),
        ("pages/5_Failures.py", {"f_show": "alarms", "t": "0.01"}),
        ("pages/5_Failures.py", {"f_show": "pairs"}),
        ("pages/6_Results.py", {}),
    ],
)
def test_every_page_opens_and_says_which_set_is_missing(
    without_pictures: Path, open_page: Open, page: str, query: dict[str, str]
) -> None:
    at = open_page(page, query)
    if "Embeddings" in page:
        # outliers are tried behind the page, a few at a time
        missing = re.compile(r"cifar10 \([a-z, ]*train[a-z, ]*\) is not on this machine")
        until(at, lambda: missing.search(texts(at)) is not None)
    assert not at.error
    if "Results" not in page and query != {"f_show": "pairs"}:
        assert "cifar10 (" in texts(at) and "is not on this machine" in texts(at)
        assert "`python -m sdviz download cifar10` fetches it." in texts(at)
        assert sum("is not on this machine" in one.value for one in at.caption) <= 4


def test_each_missing_set_has_its_own_way_on_one_line(tmp_path: Path) -> None:
    root = tmp_path / "sdviz_data"
    ways = [
        Way(name, split, way_to_get(name, split), True)
        for name, split in (("cifar10", "train"), ("cifar10", "test"), ("street_view", "all"))
    ]
    other = Way("textures", "all", "what is here of textures has other ids", False)
    missing = [*(way.reason for way in ways), "3 of 5 images are no longer what their id says"]
    assert missing_lines(missing, [*ways, other]) == [
        "cifar10 (train, test) is not on this machine: `python -m sdviz download cifar10` fetches it.",
        rf"street\_view is not on this machine: put `street_view.parquet` in `{root}`, "
        "or in another `SDVIZ_DATA`.",
        "3 of 5 images are no longer what their id says.",
        "What is here of textures has other ids.",
    ]
    # what was said above is not said again
    assert missing_lines(missing[:1], ways) == [
        "cifar10 (train) is not on this machine: `python -m sdviz download cifar10` fetches it."
    ]


def test_an_outlier_whose_source_is_missing_has_its_recipe_and_a_grey_place(
    without_pictures: Path, open_page: Open
) -> None:
    one = pd.read_parquet(without_pictures / "outliers.parquet").iloc[0]
    for page in ("pages/4_Sample_votes.py", "pages/5_Failures.py", "pages/2_Pseudo_labels.py"):
        at = open_page(page, {"sample": one["id"]})
        assert "cifar10 (train) is not on this machine" in texts(at) + str([m.value for m in at.markdown])


def test_home_opens_without_the_set(shipped: Shipped, open_app: Open) -> None:
    shipped(max_s=1000, dataset="cifar10")
    at = open_app()
    (info,) = [one.value for one in at.info]
    assert info.startswith(
        "No examples here: `cifar10` is not on this machine. `python -m sdviz download cifar10`"
    )
    assert "`cifar10_train.parquet` and `cifar10_test.parquet`" in info and info.endswith(".")
    # no line on pictures where there are none
    assert "The first test image of each" not in texts(at)
