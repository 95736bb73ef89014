from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from streamlit.testing.v1 import AppTest

from sdviz.analysis import Evidence
from sdviz.analysis.stored_layouts import file_of, usual_views
from sdviz.bundle import Bundle
from sdviz.projection import LayoutSettings, compute_layouts, write_layouts
from tests.cut_bundle import change_table
from tests.patience import patience
from tests.tiny_bundle import with_parts

PAGE = "pages/3_Embeddings.py"
Put = Callable[..., Path]
Open = Callable[..., AppTest]
Data = Callable[[AppTest], list[dict[str, Any]]]


def scatter_of(at: AppTest, component_data: Data) -> dict[str, Any]:
    return next(one for one in component_data(at) if "frames" in one and "rgb" in one)


def points_of(data: dict[str, Any]) -> np.ndarray:
    raw = np.frombuffer(base64.b64decode(data["points"]), "<f4")
    return raw.reshape(len(data["frames"]), len(data["ids"]), data["dims"])


def counts(data: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["count"] for one in data["groups"]}


def texts(at: AppTest) -> str:
    return " ".join(str(one.value) for kind in (at.markdown, at.caption, at.info) for one in kind)


def test_points_are_the_pca_of_the_features_in_the_bundle(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    bundle = full_bundle()
    query = {"embeddings_view": "After training", "embeddings_method": "PCA", "embeddings_dims": "3-D"}
    data = scatter_of(open_page(PAGE, query), component_data)
    banks, stored = (load_file(bundle / f"{name}.safetensors") for name in ("features", "ood_features"))
    rows = pq.read_table(bundle / "features.parquet").to_pandas()
    scores = pq.read_table(bundle / "scores.parquet").to_pandas()
    by_id = dict(
        zip(rows["id"], np.concatenate([banks["id_features"], banks["outlier_features"]]), strict=True)
    )
    for name in scores["set"].unique():
        by_id |= dict(zip(scores["id"][scores["set"] == name], stored[name], strict=True))
    # the sets of 40 in full, the banks' share of 2,000 in full as well; no validation set at first
    assert len(data["ids"]) == 2 * 240 + 4 * 40 and len(set(data["ids"])) == len(data["ids"])
    assert not any("-val" in one for one in data["ids"])
    x = np.stack([by_id[one] for one in data["ids"]]).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    model = PCA(3, svd_solver="full").fit(x)
    points = points_of(data)[0]
    assert np.allclose(points, model.transform(x), atol=1e-4)
    share = 100 * model.explained_variance_ratio_.sum()
    trust = trustworthiness(x, points, n_neighbors=10)
    assert data["frames"][0]["note"] == f"trustworthiness {trust:.3f}, {share:.0f} % of the variance"


def test_training_is_followed_from_its_first_epoch_to_its_last(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    bundle = full_bundle()
    at = open_page(PAGE, {"embeddings_method": "PCA"})
    data = scatter_of(at, component_data)
    names = [one["name"] for one in data["frames"]]
    assert names == ["before training", "epoch 1", "epoch 2", "epoch 3", "epoch 4", "epoch 5 (last)"]
    assert data["panels"] == [1, 5]
    followed = pq.read_table(bundle / "snapshots.parquet").to_pandas()
    shown = followed[~followed["role"].str.contains("-val")]
    assert sorted(data["ids"]) == sorted(shown["id"])
    assert counts(data)["SD outliers"] == (followed["role"] == "outlier").sum()
    at.segmented_control(key="embeddings_panels").set_value("One, with a slider").run()
    assert scatter_of(at, component_data)["panels"] == []


def test_a_frozen_encoder_has_one_picture_and_is_said_to_be_one(
    full_bundle: Put, open_page: Open, component_data: Data, tmp_path: Path
) -> None:
    bundle = full_bundle()
    frozen = "the encoder was frozen"
    assert frozen not in texts(open_page(PAGE, {"embeddings_method": "PCA"}))
    whole = Bundle.load(bundle, "cpu")
    epochs = load_file(bundle / "snapshots.safetensors")
    still = tmp_path / "still" / "snapshots.safetensors"
    still.parent.mkdir()
    save_file(dict.fromkeys(epochs, epochs["epoch_000"]), still)
    with_parts(whole, whole.parts | {"snapshots.safetensors": still}).save(bundle)
    at = open_page(PAGE, {"embeddings_method": "PCA"})
    assert not at.exception and frozen in texts(at)
    assert "One picture stands for all 6 epochs followed" in texts(at)
    data = scatter_of(at, component_data)
    assert [one["name"] for one in data["frames"]] == ["every epoch"] and data["panels"] == []
    # there is nothing to choose
    assert "embeddings_panels" not in [one.key for one in at.segmented_control]
    assert frozen not in texts(
        open_page(PAGE, {"embeddings_method": "PCA", "embeddings_view": "After training"})
    )


def test_colours_say_what_the_tables_say(full_bundle: Put, open_page: Open, component_data: Data) -> None:
    bundle = full_bundle()
    query = {
        "embeddings_view": "After training",
        "embeddings_method": "PCA",
        "embeddings_colour": "right or wrong",
    }
    at = open_page(PAGE, query | {"t": "0.4"})
    scores = pq.read_table(bundle / "scores.parquet").to_pandas()
    scores = scores[~scores["set"].str.contains("-val")]
    flagged, is_id = scores["total"] > 0.4, scores["role"] == "id"
    missed, alarms = int((~is_id & ~flagged).sum()), int((is_id & flagged).sum())
    want = {
        "right": len(scores) - missed - alarms,
        "missed OOD": missed,
        "false alarm": alarms,
        "not scored": 480,
    }
    assert counts(scatter_of(at, component_data)) == {name: n for name, n in want.items() if n}

    at.selectbox(key="embeddings_colour").set_value("votes").run()
    votes = scores["votes"].value_counts()
    want = {f"votes: {value}": int(n) for value, n in sorted(votes.items())} | {"not scored": 480}
    assert counts(scatter_of(at, component_data)) == want

    at.selectbox(key="embeddings_colour").set_value("score").run()
    data = scatter_of(at, component_data)
    low, high = np.quantile(scores["total"], [0.02, 0.98])
    assert (data["ramp"]["low"], data["ramp"]["high"]) == (f"≤ {low:.3g}", f"≥ {high:.3g}")
    of_text = {
        one: text
        for one, text in zip(data["ids"], data["texts"], strict=True)
        if "score" in text.split("\n")[-4]
    }
    some = scores.iloc[::17]
    for one, total in zip(some["id"], some["total"], strict=True):
        assert f"score {total:.3g}, {'above' if total > 0.4 else 'below'} 0.4" in of_text[one]

    at.selectbox(key="embeddings_colour").set_value("S of outliers").run()
    made = pq.read_table(bundle / "outliers.parquet").to_pandas()["start_timestep"].value_counts()
    want = {f"S = {s}": int(n) for s, n in sorted(made.items())} | {"no outlier": 400}
    assert counts(scatter_of(at, component_data)) == want

    at.selectbox(key="embeddings_colour").set_value("cluster").run()
    train = pq.read_table(bundle / "pseudo_labels.parquet").to_pandas()["label"].value_counts()
    found = counts(scatter_of(at, component_data))
    at.multiselect(key="embeddings_sets").set_value(["train"]).run()
    of_train = counts(scatter_of(at, component_data))
    assert sorted(of_train.values()) == sorted(train.tolist()) and sum(found.values()) == 640


def test_figure_3_is_one_click_and_stands_in_the_address(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    full_bundle()
    at = open_page(PAGE, {"embeddings_view": "After training", "embeddings_method": "PCA"})
    at.button(key="embeddings_figure_3").click().run()
    data = scatter_of(at, component_data)
    groups = counts(data)
    assert list(groups)[:2] == ["train (ID)", "shapes-novel (near-OOD)"]
    assert all(one.startswith("outlier of ") for one in list(groups)[2:]) and len(groups) > 6
    assert data["panels"] == [1, 5]
    colours = {one["name"]: one["colour"] for one in data["groups"]}
    assert colours["train (ID)"] == "#6BA8D6" and colours["shapes-novel (near-OOD)"] == "#D55E00"
    assert len({c for name, c in colours.items() if name.startswith("outlier")}) == len(groups) - 2
    assert at.query_params["embeddings_colour"] == "as in Figure 3"
    # what a page shows anyhow needs no word in the address
    assert not {"embeddings_method", "embeddings_view"} & set(at.query_params)


def test_what_is_chosen_stays_marked_over_reruns(full_bundle: Put, open_page: Open) -> None:
    full_bundle()
    at = open_page(PAGE)
    for _ in range(2):
        for one in at.get("button_group"):
            # the browser marks what the element names, until a person has clicked
            assert list(one.proto.default) == [0], one.proto.label
        at.run()


def test_t_sne_follows_a_pca_and_is_kept_on_disk(
    full_bundle: Put, open_page: Open, component_data: Data, tmp_path: Path
) -> None:
    full_bundle()
    at = open_page(PAGE)
    first = scatter_of(at, component_data)
    assert first["layout"].endswith(("-pca", "-tsne"))
    for _ in range(int(patience(240))):
        at.run()
        if scatter_of(at, component_data)["layout"].endswith("-tsne"):
            break
        assert "PCA" in str([one.proto.text for one in at.get("progress")])
        time.sleep(0.25)
    data = scatter_of(at, component_data)
    assert data["layout"].endswith("-tsne")
    files = list((tmp_path / "sdviz_runs" / ".layouts").glob("*.npz"))
    assert len(files) == 1
    with np.load(files[0]) as file:
        assert np.array_equal(file["points"], points_of(data))
        assert data["frames"][5]["note"] == f"trustworthiness {file['trust'][5]:.3f}"


def test_a_layout_that_came_with_the_bundle_is_shown_at_once(
    full_bundle: Put, open_page: Open, component_data: Data, tmp_path: Path
) -> None:
    folder = full_bundle()
    evidence = Evidence(Bundle.load(folder, device="cpu"))
    view = next(usual_views(evidence))
    points = view.points(evidence)
    file = file_of(evidence, points, view.unit_length, view.layout)
    assert file is not None
    made = compute_layouts(points.features, LayoutSettings("pca"))
    write_layouts(file, made)
    at = open_page(PAGE)
    data = scatter_of(at, component_data)
    assert data["layout"].endswith("-tsne") and not at.get("progress")
    assert np.array_equal(points_of(data), made.points)
    assert not (tmp_path / "sdviz_runs" / ".layouts").exists()


def test_the_sample_in_the_address_is_ringed_or_the_one_nearest_to_it(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    bundle = full_bundle()
    query = {"embeddings_view": "After training", "embeddings_method": "PCA"}
    at = open_page(PAGE, query | {"sample": "digits/test/00003"})
    data = scatter_of(at, component_data)
    assert data["ids"][data["marked"]] == "digits/test/00003" and "not among these points" not in texts(at)
    assert scatter_of(open_page(PAGE, query | {"sample": "nothing"}), component_data)["marked"] == -1
    # one of a set that is not drawn
    at = open_page(PAGE, query | {"sample": "digits/test/00003", "embeddings_sets": "test"})
    data = scatter_of(at, component_data)
    stored = load_file(bundle / "ood_features.safetensors")
    x, one = (stored[name].astype(np.float64) for name in ("test", "digits"))
    scores = pq.read_table(bundle / "scores.parquet").to_pandas()
    ids = {name: scores["id"][scores["set"] == name].tolist() for name in ("test", "digits")}
    wanted = one[ids["digits"].index("digits/test/00003")]
    x, wanted = x / np.linalg.norm(x, axis=1, keepdims=True), wanted / np.linalg.norm(wanted)
    assert data["ids"][data["marked"]] == ids["test"][((x - wanted) ** 2).sum(1).argmin()]
    assert "`digits/test/00003`, is not among these points" in texts(at)


def test_pictures_come_in_sheets_and_lacking_ones_are_named(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    full_bundle()
    at = open_page(PAGE, {"embeddings_view": "After training", "embeddings_method": "PCA"})
    sheets = [one for one in component_data(at) if "src" in one and "side" in one]
    assert len(sheets) == 1 and sheets[0]["src"].startswith("data:image/jpeg;base64,")
    assert sheets[0]["name"] == scatter_of(at, component_data)["sheets"]["name"] + "/0"


def test_outliers_that_no_file_keeps_are_generated_in_the_background(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    bundle = full_bundle(n_id=12, n_snapshots=7, n_per_set=6, sets=("digits",))
    change_table(bundle, "outliers.parquet", lambda t: t.assign(png=None))
    sd = {"id": lambda t: t["id"].where(t["set"] != "digits", t["id"] + "~0")}
    sd["role"] = lambda t: t["role"].where(t["set"] != "digits", "sd")
    change_table(bundle, "scores.parquet", lambda t: t.assign(**sd))
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["config"]["evaluation"]["sd_test"] = {"start_timestep": 100, "guidance_scale": 2.0, "seed": 0}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    at = open_page(PAGE, {"embeddings_view": "After training", "embeddings_method": "PCA"})
    data = scatter_of(at, component_data)
    without_file = [row for row, one in enumerate(data["ids"]) if "~" in one]
    assert len(without_file) == 12 + 6 and data["lacking"] == without_file and data["coming"]
    first = [one["src"] for one in component_data(at) if "src" in one]
    end = time.monotonic() + patience(120)
    while scatter_of(at, component_data)["coming"] and time.monotonic() < end:
        time.sleep(0.5)
        at.run()
    assert scatter_of(at, component_data)["lacking"] == []
    assert [one["src"] for one in component_data(at) if "src" in one] != first


@pytest.mark.parametrize("how", [{"sets": ("digits",)}, {"n_per_set": 1}, {"n_id": 12, "n_snapshots": 7}])
@pytest.mark.parametrize("view", ["Through training", "After training"])
def test_small_bundles_are_shown(
    view: str, how: dict[str, Any], full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    full_bundle(**how)
    at = open_page(PAGE, {"embeddings_view": view, "embeddings_method": "PCA"})
    data = scatter_of(at, component_data)
    assert len(data["ids"]) == sum(counts(data).values()) > 0
    assert np.isfinite(points_of(data)).all()


def test_too_few_points_for_a_method_say_so(full_bundle: Put, open_page: Open) -> None:
    full_bundle(n_per_set=1)
    query = {"embeddings_view": "After training", "embeddings_sets": "digits"}
    assert "1 images are too few for this method, which needs 6" in texts(open_page(PAGE, query))
    at = open_page(PAGE, query)
    at.multiselect(key="embeddings_sets").set_value([]).run()
    assert not at.exception and "Choose at least one set" in texts(at)


def test_sd_outliers_of_test_images_have_a_name_of_their_own_and_keep_their_id(
    full_bundle: Put, open_page: Open, component_data: Data, tmp_path: Path
) -> None:
    bundle = full_bundle()
    to = {"digits": "sd-outliers"}
    stored = load_file(bundle / "ood_features.safetensors")
    part = tmp_path / "other" / "ood_features.safetensors"
    part.parent.mkdir()
    save_file({to.get(name, name): array for name, array in stored.items()}, part)
    whole = Bundle.load(bundle, "cpu")
    with_parts(whole, whole.parts | {"ood_features.safetensors": part}).save(bundle)
    change_table(
        bundle,
        "scores.parquet",
        lambda t: t.assign(set=t["set"].replace(to), role=t["role"].mask(t["set"] == "digits", "sd")),
    )
    query = {"embeddings_view": "After training", "embeddings_method": "PCA"}
    # a link has the set's id
    at = open_page(PAGE, query | {"embeddings_sets": ["sd-outliers", "SD outliers"]})
    assert at.multiselect(key="embeddings_sets").value == ["sd-outliers", "SD outliers"]
    assert set(counts(scatter_of(at, component_data))) == {"SD outliers of test images", "SD outliers"}
    assert "SD outliers of test images" in at.multiselect(key="embeddings_sets").options
    at.multiselect(key="embeddings_sets").set_value(["train", "sd-outliers"]).run()
    assert at.query_params["embeddings_sets"] == ["train", "sd-outliers"]
    # nothing chosen is a choice; the usual ones need no place in the link
    at.multiselect(key="embeddings_sets").set_value([]).run()
    assert at.query_params["embeddings_sets"] == ""
    assert open_page(PAGE, query | {"embeddings_sets": [""]}).multiselect(key="embeddings_sets").value == []
    assert "embeddings_sets" not in open_page(PAGE, query).query_params


def test_values_of_a_link_that_mean_nothing_are_harmless(
    full_bundle: Put, open_page: Open, component_data: Data
) -> None:
    full_bundle()
    names = (
        "view",
        "method",
        "dims",
        "panels",
        "sets",
        "colour",
        "n",
        "perplexity",
        "neighbors",
        "seed",
        "unit",
    )
    at = open_page(PAGE, {f"embeddings_{name}": "nonsense" for name in names})
    assert len(scatter_of(at, component_data)["ids"]) > 0


def test_a_bundle_without_a_detector_says_what_would_be_here(full_bundle: Put, open_page: Open) -> None:
    full_bundle(detector=False)
    text = texts(open_page(PAGE))
    assert "has no features" in text and "as points in feature space" in text


def test_without_a_bundle_the_page_says_how_to_get_one(open_page: Open) -> None:
    at = open_page(PAGE)
    assert "There is no trained network on this machine yet." in texts(at)
    assert "python -m sdviz run" in at.code[0].value
