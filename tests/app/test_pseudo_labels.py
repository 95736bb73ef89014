from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, confusion_matrix, normalized_mutual_info_score
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.ui.text import plain
from tests.arrow_tables import table_of
from tests.cut_bundle import change_table

LABELS = "pages/2_Pseudo_labels.py"
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


def class_names(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "bundle.json").read_text())["class_names"]
    return found


def muddle(folder: Path) -> pd.DataFrame:
    """Puts some images into other clusters, with other confidences, the last cluster left empty."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(7)
        label, n = table["label"].to_numpy().copy(), len(table)
        some = rng.choice(n, n // 3, replace=False)
        label[some] = rng.integers(0, 9, len(some))
        label[label == 9] = 4
        return table.assign(label=label, confidence=rng.uniform(0.2, 1, n).astype(np.float32))

    change_table(folder, "pseudo_labels.parquet", change)
    return pd.read_parquet(folder / "pseudo_labels.parquet")


def known(table: pd.DataFrame) -> np.ndarray:
    """The class of each training image, from the set itself."""
    train = data.load("shapes", "train")
    row = {one: i for i, one in enumerate(train.ids.tolist())}
    return np.array(train.class_names)[train.labels[[row[one] for one in table["id"]]]]


def texts(at: AppTest) -> str:
    return " | ".join(
        one.value for kind in ("markdown", "caption", "info", "success", "error") for one in getattr(at, kind)
    )


def link(at: AppTest, key: str) -> str:
    value = at.query_params.get(key, "")
    return value if isinstance(value, str) else value[-1]


def bars(at: AppTest) -> list[pd.DataFrame]:
    """The table of each chart of bars."""
    return [table_of(one.proto.data.data) for one in at.get("vega_lite_chart")]


def numbers(part: Any) -> np.ndarray:  # noqa: ANN401
    """What plotly sends: a list, or base64 of little-endian numbers."""
    if isinstance(part, dict):
        flat = np.frombuffer(base64.b64decode(part["bdata"]), np.dtype(part["dtype"]).newbyteorder("<"))
        shape = [int(one) for one in str(part["shape"]).split(",")] if "shape" in part else [-1]
        return flat.reshape(shape)
    return np.array(part)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def picture(cell: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(cell["src"].split(",", 1)[1]))))


def test_sizes_confidences_and_who_is_surest(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle()
    table, names = muddle(folder), class_names(folder)
    at = open_page(LABELS)
    sizes = np.bincount(table["label"], minlength=10)
    assert sizes[9] == 0
    sure = 100 * (table["confidence"] >= 0.99).mean()
    assert f"240 training images in 10 clusters, labels from SCAN: 0 to {sizes.max()} images each" in texts(at)
    assert f"at least 99 % sure of {sure:.1f} % of them" in texts(at)

    # 1. a row for each cluster: the surest four, the least sure four
    (grid,) = [g for g in component_data(at) if g["row_names"]]
    assert [one["text"] for one in grid["row_names"]] == names
    tops = [(one["text"], one["small"]) for one in grid["column_names"]]
    assert tops[:2] + tops[-2:] == [
        ("surest", "1st"), ("surest", "2nd"), ("least sure", "2nd"), ("least sure", "1st")
    ]  # fmt: skip
    for cluster in range(10):
        here = table[table["label"] == cluster].sort_values("confidence", ascending=False, kind="stable")
        cells = grid["cells"][8 * cluster : 8 * (cluster + 1)]
        small = grid["row_names"][cluster]["small"]
        if not len(here):
            assert small == "0 images" and {c["id"] for c in cells} == {""}
            continue
        mean = 100 * here["confidence"].astype(float).mean()
        assert small == f"{len(here)} images, {mean:.1f} % sure on average"
        assert [c["id"] for c in cells] == [*here["id"][:4], *here["id"][-4:]]
        shown = [*here["confidence"][:4], *here["confidence"][-4:]]
        assert [c["text"] for c in cells] == [f"{100 * float(one):.2f} %" for one in shown]

    # 2. the charts: sizes, and numpy's histogram
    size_chart, confidence_chart = bars(at)
    assert size_chart["x"].tolist() == names
    assert size_chart["y"].tolist() == sizes.tolist()
    counts, _ = np.histogram(table["confidence"].astype(float), 20, (0, 1))
    assert confidence_chart["y"].tolist() == counts[counts > 0].tolist()

    # 3. one cluster
    at.selectbox(key="pseudo_labels_cluster").select(2).run()
    assert link(at, "cluster") == "2"
    here = table[table["label"] == 2].sort_values("confidence", ascending=False, kind="stable")
    grids = [g for g in component_data(at) if g["cells"] and g["cells"][0]["id"]]
    assert len(grids) == 2
    half = min(20, -(-len(here) // 2))
    assert [c["id"] for c in grids[0]["cells"]] == here["id"][:half].tolist()
    assert [c["id"] for c in grids[1]["cells"]] == here["id"][half:][-20:][::-1].tolist()
    counts, _ = np.histogram(here["confidence"].astype(float), 20, (0, 1))
    assert bars(at)[1]["y"].tolist() == counts[counts > 0].tolist()
    train = data.load("shapes", "train")
    first = grids[0]["cells"][0]
    assert np.array_equal(picture(first), train.images[np.flatnonzero(train.ids == first["id"])[0]])

    # 4. the empty one, by its link
    at = open_page(LABELS, {"cluster": "9"})
    assert f"No training image is in the cluster {names[9]}" in texts(at)


def test_known_classes_have_a_switch_and_are_matched_as_by_scipy(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    folder = full_bundle()
    table, names = muddle(folder), class_names(folder)
    at = open_page(LABELS, {"cluster": "1"})
    # 1. hidden at first: no number, no class under a picture
    assert not at.toggle(key="pseudo_labels_truth").value
    assert not at.metric and len(bars(at)) == 2 and not at.get("plotly_chart") and not at.subheader
    assert {c["small"] for g in component_data(at) for c in g["cells"]} == {""}

    # 2. switched on
    at.toggle(key="pseudo_labels_truth").set_value(True).run()
    assert link(at, "truth") == "1"
    classes = known(table)
    own = np.unique(classes)
    codes = np.searchsorted(own, classes)
    counts = confusion_matrix(table["label"], codes, labels=np.arange(10))
    rows, columns = linear_sum_assignment(-counts)
    accuracy = counts[rows, columns].sum() / len(table)
    assert 0.5 < accuracy < 0.9
    assert {m.label: m.value for m in at.metric} == {
        "Accuracy": f"{accuracy:.2%}",
        "NMI": f"{normalized_mutual_info_score(codes, table['label']):.4f}",
        "ARI": f"{adjusted_rand_score(codes, table['label']):.4f}",
        "Images": "240",
    }
    (heat,) = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    assert heat["y"] == names
    # every class once, and the matched pairs on the diagonal
    order = [own.tolist().index(one) for one in heat["x"]]
    assert sorted(order) == list(range(10))
    assert np.array_equal(numbers(heat["z"]), counts[:, order])
    assert np.trace(numbers(heat["z"])[:9, :9]) == counts[rows, columns].sum()
    wrong = len(table) - counts[rows, columns].sum()
    assert f"{wrong} of 240 images are in a cluster that is not matched to their class" in texts(at)
    of = dict(zip(table["id"], classes, strict=True))
    cells = [c for g in component_data(at) for c in g["cells"] if c["id"]]
    assert len(cells) > 10 and all(c["small"] == f"is {of[c['id']]}" for c in cells)


def test_the_cluster_of_an_image_is_found(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle()
    table, names = muddle(folder), class_names(folder)
    at = open_page(LABELS)
    # 1. a training image, by the end of its id
    row = table.iloc[17]
    at.text_input(key="pseudo_labels_find").set_value(row["id"].rsplit("/", 1)[1]).run()
    assert link(at, "sample") == row["id"]
    here = table[table["label"] == row["label"]].sort_values("confidence", ascending=False, kind="stable")
    place = here["id"].tolist().index(row["id"]) + 1
    assert (
        f"{row['id']}: cluster **{names[row['label']]}**, {100 * row['confidence']:.2f} % sure: "
        f"place {place} of {len(here)} in its cluster" in texts(at)
    )
    # 2. any other image: the clusterer is asked
    for source, split in (("shapes", "test"), ("digits", "test")):
        one = data.load(source, split, limit=1)
        at.text_input(key="pseudo_labels_find").set_value(str(one.ids[0])).run()
        label, confidence = Bundle.load(folder, "cpu").pseudo_label(one.images)
        assert f"cluster **{names[label[0]]}**, {100 * confidence[0]:.2f} % sure: the clusterer" in texts(at)
        (found,) = [g for g in component_data(at) if len(g["cells"]) == 1]
        assert np.array_equal(picture(found["cells"][0]), one.images[0])
    # 3. none, one of a set that is not here, and close
    for wanted, why in (
        ("no such image", "not found: 'no such image' is no id of an image set"),
        ("shapes/test/99999", "not found: no image has this id."),
        ("cifar10/test/00001", "not found: cifar10 (test) is not on this machine"),
    ):
        at.text_input(key="pseudo_labels_find").set_value(wanted).run()
        assert not at.exception
        assert why in texts(at)
        assert at.button(key="pseudo_labels_open_votes").disabled
        # what nobody has found is no sample of any page
        assert link(at, "sample") == ""
    at.button(key="pseudo_labels_close").click().run()
    assert link(at, "sample") == ""
    assert "not found" not in texts(at) and at.text_input(key="pseudo_labels_find").value == ""
    # an empty field closes it as well
    for wanted in ("no such image", row["id"]):
        at.text_input(key="pseudo_labels_find").set_value(wanted).run()
        assert at.button(key="pseudo_labels_close")
        at.text_input(key="pseudo_labels_find").set_value("").run()
        assert link(at, "sample") == "" and "not found" not in texts(at)
    # 4. the sample of another page is there on arrival, and goes on to Sample votes
    at = open_page(LABELS, {"sample": row["id"]})
    at.button(key="pseudo_labels_open_votes").click().run()
    assert not at.exception
    assert at.title[0].value == "Sample votes"
    assert link(at, "sample") == row["id"]


def test_an_upload_gets_its_cluster(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle()
    image = data.load("shapes", "test", limit=1).images
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "PNG")
    at = open_page(LABELS)
    at.file_uploader[0].set_value(
        [("mine.png", stream.getvalue(), "image/png"), ("bad.png", b"x", "image/png")]
    )
    at.run()
    assert not at.exception
    label, confidence = Bundle.load(folder, "cpu").pseudo_label(image)
    (cell,) = [c for g in component_data(at) for c in g["cells"] if c["alt"].startswith("upload/")]
    assert cell["text"] == class_names(folder)[label[0]]
    assert cell["small"] == f"{100 * confidence[0]:.1f} % sure"
    assert "bad.png" in texts(at)


@pytest.mark.parametrize(
    ("page", "query"),
    [
        (LABELS, {}),
        ("pages/3_Embeddings.py", {"embeddings_method": "PCA", "embeddings_colour": "cluster"}),
        ("pages/4_Sample_votes.py", {}),
        ("pages/5_Failures.py", {"f_show": "alarms", "t": "0.01"}),
    ],
)
def test_the_frequent_class_in_a_clusters_name_has_a_switch_for_every_page(
    full_bundle: Full, open_page: Open, component_data: Read, page: str, query: dict[str, str]
) -> None:
    folder = full_bundle()
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["class_names"] = [f"cluster {i}, often {name}" for i, name in enumerate(manifest["class_names"])]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    at = open_page(page, query)
    shown = str(component_data(at)) + texts(at) + str([one.options for one in at.selectbox])
    assert ", often " not in shown and "cluster" in shown
    at = open_page(page, query | {"truth": "1"})
    shown = str(component_data(at)) + texts(at) + str([one.options for one in at.selectbox])
    assert ", often " in shown
    # it goes along to the next page
    assert link(at, "truth") == "1"


def test_a_name_is_kept_next_to_the_bundle_and_shown_everywhere(
    full_bundle: Full, open_page: Open, component_data: Read, tmp_path: Path
) -> None:
    folder = full_bundle()
    names, before = class_names(folder), hashes(folder)
    bundle_hash = Bundle.load(folder, "cpu").hash
    at = open_page(LABELS, {"cluster": "2"})
    field = at.text_input(key="pseudo_labels_name")
    assert field.value == names[2]
    field.set_value("  plus   sign ").run()
    assert at.selectbox(key="pseudo_labels_cluster").options[3] == "plus sign"
    assert bars(at)[0]["x"][2] == "plus sign"

    # 1. kept beside the runs; every file of the bundle is as it was
    kept = json.loads((tmp_path / "sdviz_runs" / "cluster_names.json").read_text())
    assert kept == {bundle_hash: {"2": "plus sign"}}
    assert hashes(folder) == before
    assert Bundle.load(folder, "cpu").hash == bundle_hash

    # 2. other sessions and other pages show it
    assert open_page(LABELS).selectbox(key="pseudo_labels_cluster").options[3] == "plus sign"
    scores = pd.read_parquet(folder / "scores.parquet")
    t = repr(float(scores["total"].max()))
    failures = open_page("pages/5_Failures.py", {"t": t})
    options = failures.selectbox(key="failures_f_cluster").options
    assert "plus sign" in options and names[2] not in options
    votes = open_page("pages/4_Sample_votes.py", {"sample": str(scores["id"][0])})
    told = json.dumps(component_data(votes)) + texts(votes) + str([one.to_dict() for one in bars(votes)])
    assert "plus sign" in told
    query = {"embeddings_view": "After training", "embeddings_method": "PCA", "embeddings_colour": "cluster"}
    points = open_page("pages/3_Embeddings.py", query)
    (groups,) = [g["groups"] for g in component_data(points) if "groups" in g]
    assert "plus sign" in [one["name"] for one in groups] and names[2] not in [one["name"] for one in groups]

    # 3. another cluster's name is refused, and said; the bundle's own comes back
    at.text_input(key="pseudo_labels_name").set_value(names[4]).run()
    assert f"another cluster is called '{names[4]}' already" in texts(at)
    assert at.selectbox(key="pseudo_labels_cluster").options[3] == "plus sign"
    at.button(key="pseudo_labels_own_name").click().run()
    assert at.selectbox(key="pseudo_labels_cluster").options[1:] == names
    assert json.loads((tmp_path / "sdviz_runs" / "cluster_names.json").read_text()) == {}


@pytest.mark.parametrize(
    "how", [{"detector": False}, {"sets": ("digits",)}, {"sets": ("digits",), "n_per_set": 1}]
)
def test_what_the_detector_lacks_does_not_matter(
    full_bundle: Full, open_page: Open, component_data: Read, how: dict[str, Any]
) -> None:
    folder = full_bundle(**how)
    table = pd.read_parquet(folder / "pseudo_labels.parquet")
    at = open_page(LABELS, {"truth": "1"})
    (grid,) = [g for g in component_data(at) if g["row_names"]]
    assert [int(one["small"].split(" ")[0]) for one in grid["row_names"]] == np.bincount(
        table["label"], minlength=10
    ).tolist()
    assert at.metric[3].value == "240"


def test_one_training_image(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle(detector=False)
    change_table(folder, "pseudo_labels.parquet", lambda table: table[:1])
    one = pd.read_parquet(folder / "pseudo_labels.parquet").iloc[0]
    at = open_page(LABELS, {"truth": "1"})
    assert "1 training image in 10 clusters" in texts(at)
    (grid,) = [g for g in component_data(at) if g["row_names"]]
    assert [c["id"] for c in grid["cells"] if c["id"]] == [one["id"]]
    assert at.metric[0].value == "100.00%"
    for cluster in (one["label"], (one["label"] + 1) % 10):
        at.selectbox(key="pseudo_labels_cluster").select(int(cluster)).run()
        assert not at.exception


def test_images_that_are_not_on_this_machine(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle(detector=False)
    change_table(
        folder,
        "pseudo_labels.parquet",
        lambda table: table.assign(id=table["id"].str.replace("shapes/train/", "cifar10/train/")),
    )
    at = open_page(LABELS, {"truth": "1"})
    (line,) = [one for one in at.caption if "Named without a picture" in one.value]
    assert "cifar10 (train) is not on this machine." in line.value
    assert "`python -m sdviz download cifar10` fetches it." in line.proto.help
    assert "No class of a training image is known on this machine" in texts(at)
    assert not at.metric
    (grid,) = [g for g in component_data(at) if g["row_names"]]
    assert not grid["cells"][0]["src"]


def test_without_a_bundle_and_without_clusters(shipped: Callable[..., Path], open_page: Open) -> None:
    at = open_page(LABELS)
    assert "There is no trained network on this machine yet" in texts(at)
    assert "each cluster of the training images" in texts(at)
    # a bundle that only makes outliers
    shipped()
    at = open_page(LABELS)
    assert plain("This bundle has no pseudo_labels.parquet") in texts(at)
    assert "each cluster of the training images" in texts(at)
    assert at.code[0].value


@pytest.mark.parametrize("cluster", ["10", "-1", "x", "²"])
def test_nonsense_in_the_link_is_harmless(full_bundle: Full, open_page: Open, cluster: str) -> None:
    full_bundle(detector=False)
    at = open_page(LABELS, {"cluster": cluster, "truth": "maybe", "sample": "*[x](y)*"})
    assert at.selectbox(key="pseudo_labels_cluster").value == -1
    assert not at.toggle(key="pseudo_labels_truth").value
    assert "not found" in texts(at)
