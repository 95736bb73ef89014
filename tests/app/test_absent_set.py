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
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.analysis.pictures import Way, way_to_get
from sdviz.bundle import Bundle
from sdviz.bundle.generated import decode_png, generated_images
from sdviz.ui.missing import missing_lines
from sdviz.ui.text import plain
from tests.cut_bundle import change_table
from tests.generated import carry_generated
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


def line_on_top(at: AppTest) -> str:
    """The line on the missing set, which is the same on every page."""
    (line,) = [one.value for one in at.caption if "is not on this machine" in one.value and "`" in one.value]
    return line


def test_generated_images_stand_in_in_the_lab_and_are_marked(
    shipped: Shipped, open_page: Open, component_data: Read, files: dict[str, Callable[[], bytes]]
) -> None:
    folder = shipped(dataset="photos")
    carry_generated(folder, dataset="photos")
    at = open_page(LAB, {"view": "Download"})
    assert at.selectbox(key="data").value == "generated"
    assert line_on_top(at).endswith(
        "`photos` is not on this machine: images shown are **generated** by the bundle's U-Net."
    )
    assert not [b for b in at.button if b.key == "download_set"]
    grid = grid_of(at, component_data)
    assert (grid["columns"], len(grid["cells"])) == (6, 30)
    # 1. they are those of the bundle
    carried = generated_images(Bundle.load(folder, "cpu"))
    row_of = {one: row for row, one in enumerate(carried.ids.tolist())}
    for cell in grid["cells"][:6]:
        assert np.array_equal(picture(cell), carried.images[row_of[cell["alt"].split(", ")[-1]]])
    # 2. marked as such above, beside and in what is taken away
    assert all(head["text"].startswith("generated: ") for head in grid["column_names"])
    assert all("taken for " in head["small"] and "sure" in head["small"] for head in grid["column_names"])
    assert grid["row_names"][0]["text"] == "generated" and "no real image" in grid["row_names"][0]["small"]
    assert all(cell["alt"].startswith("generated: ") for cell in grid["cells"][:6])
    assert not any("original" in cell["alt"] for cell in grid["cells"])
    with zipfile.ZipFile(io.BytesIO(files["sdviz-outliers.zip"]())) as archive:  # type: ignore[arg-type]
        assert "generated/00.png" in archive.namelist()
        assert b"generated/toy/" in archive.read("manifest.csv")
    # 3. by class, by hand, in every view
    at.selectbox(key="class").select("cross").run()
    heads = grid_of(at, component_data)["column_names"]
    assert [head["text"] for head in heads] == ["generated: cross"] * 3
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
    carry_generated(shipped(dataset="photos", clusterer=False), dataset="photos")
    at = open_page(LAB)
    for head in grid_of(at, component_data)["column_names"]:
        assert head["small"] == "taken for " + head["text"].removeprefix("generated: ")
    assert not at.error


def test_home_makes_outliers_of_generated_images(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    carry_generated(shipped(dataset="photos", clusterer=False), dataset="photos")
    at = open_app()
    assert "The first generated image of each of" in texts(at) and not at.info
    (grid,) = [d for d in component_data(at) if d.get("row_names")]
    assert grid["row_names"][0] == {"text": "generated", "small": "from noise"}
    assert all(cell["alt"].startswith("generated: ") for cell in grid["cells"][:6])


@pytest.fixture
def carrying(full_bundle: Callable[..., Path]) -> tuple[Path, pd.DataFrame]:
    """A full bundle of a set that is not here, with generated images; its folder and their table."""
    folder = full_bundle(sets=("digits", "shapes-empty"))
    # no outlier has its picture in it, only its recipe
    change_table(folder, "outliers.parquet", lambda t: t.assign(png=None))
    change_table(folder, "scores.parquet", lambda t: t.assign(id=t["id"].str.replace("digits/", "cifar100/")))
    return folder, carry_generated(folder)


PAGES = [
    ("pages/1_Outlier_lab.py", {}),
    ("pages/2_Pseudo_labels.py", {}),
    ("pages/2_Pseudo_labels.py", {"cluster": "1"}),
    ("pages/3_Embeddings.py", {"embeddings_method": "PCA"}),
    ("pages/4_Sample_votes.py", {}),
    ("pages/5_Failures.py", {"f_show": "alarms", "t": "0.01"}),
    ("pages/5_Failures.py", {"f_show": "missed", "t": "20", "set": "generated-outliers"}),
    ("pages/5_Failures.py", {"f_show": "pairs"}),
    ("pages/6_Results.py", {}),
    ("pages/7_Training.py", {}),
]


@pytest.mark.parametrize(("page", "query"), PAGES)
def test_every_page_opens_on_generated_images(
    carrying: tuple[Path, pd.DataFrame],
    open_page: Open,
    component_data: Read,
    page: str,
    query: dict[str, str],
) -> None:
    _, table = carrying
    at = open_page(page, query)
    assert not at.error and not at.info
    assert "`cifar10` is not on this machine: images shown are **generated**" in line_on_top(at)
    said = texts(at) + " | ".join(one.value for one in at.markdown)
    assert "python -m sdviz" not in said.replace("python -m sdviz run", "")
    # every picture of a generated image is its own, and what has none is named in its place
    png_of = dict(zip(table["id"], table["png"], strict=True))
    cells = [cell for d in component_data(at) for cell in d.get("cells", []) if cell["src"] or cell["alt"]]
    shown = [cell for cell in cells if cell["id"] in png_of]
    if "lab" not in page and "Embeddings" not in page and "Results" not in page and "Training" not in page:
        assert shown
    for cell in shown:
        if "pair" not in query.get("f_show", ""):
            assert np.array_equal(picture(cell), decode_png(png_of[cell["id"]], 32))
    for cell in cells:
        assert cell["src"] or "cifar10" in cell["alt"]
        assert not cell["src"] or np.unique(picture(cell)).size > 1


def test_neighbours_that_are_not_here_are_named_with_their_distance(
    carrying: tuple[Path, pd.DataFrame], open_page: Open, component_data: Read
) -> None:
    at = open_page("pages/4_Sample_votes.py", {"sample": str(carrying[1]["id"][0])})
    near = [cell for d in component_data(at) for cell in d.get("cells", []) if cell["small"].startswith("d 0")]
    assert len(near) >= 10
    for cell in near:
        assert cell["src"] == "" and "cifar10/train/" in cell["alt"]
    lines = [one for one in at.caption if "Named without a picture" in one.value]
    assert lines and all("cifar10 (train) is not on this machine" in one.value for one in lines)
    assert "made from noise to look like ID" in " ".join(one.value for one in at.markdown)


def test_a_bundle_that_carries_none_opens_the_lab_on_drawn_images(
    shipped: Shipped, open_page: Open, component_data: Read
) -> None:
    shipped(dataset="photos")
    at = open_page(LAB)
    assert "generated" not in at.selectbox(key="data").options
    assert at.selectbox(key="data").value == "shapes"
    assert "`photos` is not on this machine: put `photos.parquet` in" in line_on_top(at)
    assert grid_of(at, component_data)["row_names"][0]["text"] == "original"
    for name in (*data.BUILT_IN, "your own upload"):
        at.selectbox(key="data").select(name).run()
        assert not at.exception


def test_where_the_set_is_there_it_is_shown_and_nothing_is_said(
    shipped: Shipped, open_page: Open, component_data: Read, tmp_path: Path
) -> None:
    images = write_set(tmp_path / "sdviz_data", "photos")
    carry_generated(shipped(dataset="photos"), dataset="photos")
    at = open_page(LAB)
    assert at.selectbox(key="data").value == "photos" and "generated" in at.selectbox(key="data").options
    assert "not on this machine" not in texts(at)
    cell = grid_of(at, component_data)["cells"][0]
    assert np.array_equal(picture(cell), images[int(cell["alt"].rpartition("/")[2])])


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
    assert error.value == plain(f"cifar10 could not be downloaded to {root}: no network")
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
        assert "Named without a picture: cifar10 (" in texts(at)
        # the way to get it stands in tooltips
        assert "python -m sdviz download" not in texts(at)
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


def test_an_outlier_whose_source_is_missing_has_its_recipe_and_is_named(
    without_pictures: Path, open_page: Open
) -> None:
    one = pd.read_parquet(without_pictures / "outliers.parquet").iloc[0]
    for page in ("pages/4_Sample_votes.py", "pages/5_Failures.py", "pages/2_Pseudo_labels.py"):
        at = open_page(page, {"sample": one["id"]})
        assert "cifar10 (train) is not on this machine" in texts(at) + str([m.value for m in at.markdown])


def test_home_opens_without_the_set(shipped: Shipped, open_app: Open) -> None:
    shipped(dataset="cifar10")
    at = open_app()
    assert "`cifar10` is not on this machine: `python -m sdviz download cifar10`" in line_on_top(at)
    assert not at.info
    # no line on pictures where there are none
    assert "The first test image of each" not in texts(at)
