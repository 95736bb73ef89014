from __future__ import annotations

import base64
import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.bundle import Bundle
from sdviz.ui.cache import outlier_store

LAB = "pages/1_Outlier_lab.py"
Open = Callable[..., AppTest]
Shipped = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


def picture(cell: dict[str, Any]) -> np.ndarray:
    raw = base64.b64decode(cell["src"].split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(raw)))


def main_grid(data_of_components: list[dict[str, Any]]) -> dict[str, Any]:
    (grid,) = [d for d in data_of_components if d.get("row_names") and d["row_names"][0]["text"] == "original"]
    return grid


def words(at: AppTest) -> str:
    return " | ".join(c.value for c in at.caption)


def test_the_grid_holds_what_the_bundle_makes(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    bundle = Bundle.load(shipped(), "cpu")
    grid = main_grid(component_data(open_app(LAB)))
    assert grid["columns"] == 6
    assert len(grid["cells"]) == 5 * 6
    original, outlier, control, noised, heat = (grid["cells"][i * 6] for i in range(5))
    image_id = original["alt"].split(", ")[1]
    source = data.load("shapes", "test")
    (row,) = np.flatnonzero(source.ids == image_id)
    image, label = source.images[row : row + 1], source.labels[row : row + 1]
    made = bundle.generate(image, labels=label, ids=[image_id])
    right = bundle.generate(image, labels=label, target_labels=label, ids=[image_id])
    assert np.array_equal(picture(original), image[0])
    # a lone image and one in a batch agree up to rounding
    for cell, expected in ((outlier, made.outliers), (noised, made.noised), (control, right.outliers)):
        assert np.abs(picture(cell).astype(int) - expected[0].astype(int)).mean() < 1
    assert outlier["text"] == f"told {bundle.class_names[made.target_labels[0]]}"
    assert control["text"] == f"told {bundle.class_names[label[0]]}"
    assert picture(heat).shape == (32, 32, 3)
    assert heat["text"] == "S 100, σ 0.34, w 2"
    assert "DDIM, 2 calls" in heat["small"]


def test_moving_s_changes_picture_and_caption_and_going_back_costs_nothing(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB)
    before = main_grid(component_data(at))["cells"][6]["src"]
    assert "S = 100 (σ 0.34)" in words(at)
    at.slider(key="S").set_value(150).run()
    assert not at.exception
    assert "S = 150 (σ 0.52)" in words(at)
    assert main_grid(component_data(at))["cells"][6]["src"] != before
    made = outlier_store().misses
    assert made > 0
    at.slider(key="S").set_value(100).run()
    assert main_grid(component_data(at))["cells"][6]["src"] == before
    assert outlier_store().misses == made


def test_w_counts_and_w_0_makes_one_call_a_step(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB)
    before = main_grid(component_data(at))["cells"][6]["src"]
    assert "2 network calls, 4 evaluations" in words(at)
    at.slider(key="w").set_value(0.0).run()
    assert main_grid(component_data(at))["cells"][6]["src"] != before
    assert "2 network calls, 2 evaluations" in words(at)


def test_s_0_is_the_original(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"S": "0", "view": "Trajectory"})
    cells = main_grid(component_data(at))["cells"]
    assert cells[0]["src"] == cells[6]["src"] == cells[12]["src"]
    assert [m.value for m in at.metric][2:] == ["untouched", "untouched"]
    assert "nothing is noised" in at.info[0].value


def test_a_named_target_and_all_targets_at_once(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB)
    at.selectbox(key="target").select("cross").run()
    assert {c["text"] for c in main_grid(component_data(at))["cells"][6:12]} == {"told cross"}
    at.selectbox(key="target").select("all others at once").run()
    assert not at.exception
    grid = main_grid(component_data(at))
    assert [r["text"] for r in grid["row_names"]][1:] == [
        f"told {n}" for n in Bundle.load(shipped("b")).class_names
    ]
    assert sum(c["small"] == "right label: control" for c in grid["cells"]) == 6
    assert at.metric[0].value.endswith(" of 54")
    assert at.metric[1].value.endswith(" of 6")


@pytest.mark.parametrize("count", [1, 7, 8, 16])
def test_from_one_to_sixteen_images(shipped: Shipped, open_app: Open, component_data: Read, count: int) -> None:
    shipped()
    at = open_app(LAB, {"n": str(count), "view": "Download"})
    grids = [d for d in component_data(at) if d.get("row_names")]
    assert sum(g["columns"] for g in grids) == count
    assert max(g["columns"] for g in grids) <= 7


def test_the_url_restores_the_view(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    query = {"S": "150", "w": "3.5", "n": "3", "draw": "7", "target": "star", "steps": "4"}
    query["solver"] = "DPM-Solver++(2M)"
    at = open_app(LAB, query)
    assert at.slider(key="S").value == 150
    assert at.slider(key="w").value == 3.5
    assert at.selectbox(key="target").value == "star"
    assert "DPM-Solver++(2M), 4 network calls" in words(at)
    grid = main_grid(component_data(at))
    again = main_grid(component_data(open_app(LAB, query)))
    assert [c["src"] for c in grid["cells"]] == [c["src"] for c in again["cells"]]
    other = main_grid(component_data(open_app(LAB, query | {"draw": "8"})))
    assert [c["src"] for c in grid["cells"]] != [c["src"] for c in other["cells"]]


@pytest.mark.parametrize(
    "query",
    [{"S": "9999"}, {"S": "-5"}, {"w": "nan"}, {"data": "no such set"}, {"n": "40"}, {"pick": "x,../y"}],
)
def test_nonsense_in_the_url_does_no_harm(shipped: Shipped, open_app: Open, query: dict[str, str]) -> None:
    shipped()
    at = open_app(LAB, query)
    assert at.slider(key="S").value == 100
    assert at.slider(key="w").value == 2.0


def test_settings_survive_a_visit_to_another_page(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app(LAB)
    at.slider(key="S").set_value(60).run()
    at.slider(key="w").set_value(5.0).run()
    at.switch_page("app.py").run()
    assert not at.exception
    at.switch_page(LAB).run()
    assert not at.exception
    assert (at.slider(key="S").value, at.slider(key="w").value) == (60, 5.0)


def test_picked_images_stand_in_for_the_draw(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"pick": "shapes/test/00005,shapes/test/00002"})
    cells = main_grid(component_data(at))["cells"]
    assert [c["alt"].split(", ")[1] for c in cells[:2]] == ["shapes/test/00005", "shapes/test/00002"]


def test_other_sets_get_predicted_labels_and_no_mask_numbers(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB, {"data": "digits", "n": "2"})
    assert all("sure" in c["small"] for c in main_grid(component_data(at))["column_names"])
    assert len(at.metric) == 2
    assert "S curve" not in at.button_group(key="view").options


def test_a_bundle_without_clusterer_takes_only_its_own_set(shipped: Shipped, open_app: Open) -> None:
    shipped(clusterer=False)
    at = open_app(LAB)
    assert not at.error
    assert [m.label for m in at.metric] == ["background, outlier", "background, control"]
    at.selectbox(key="data").select("digits").run()
    assert "no clusterer" in at.error[0].value
    assert not at.exception


def test_without_a_bundle_the_lab_says_what_to_do(open_app: Open) -> None:
    at = open_app(LAB)
    assert at.code[0].value == "python -m sdviz run configs/shapes-diffusion.yaml"
    assert not at.slider


def _png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 90).save(stream, "PNG")
    return stream.getvalue()


def test_uploads_of_any_kind_and_broken_ones(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"data": "your own upload"})
    assert "Drop pictures" in at.info[0].value
    good = _png((640, 200), "L")
    at.file_uploader[0].set_value(
        [
            ("grey.png", good, "image/png"),
            ("text.png", b"this is no picture", "image/png"),
            ("cut.png", _png((300, 300))[:60], "image/png"),
            ("wide.png", _png((20_000, 4)), "image/png"),
        ]
    ).run()
    assert not at.exception
    assert [e.value.split(" ")[0] for e in at.error] == ["text.png", "cut.png", "wide.png"]
    grid = main_grid(component_data(at))
    assert grid["columns"] == 1
    assert (picture(grid["cells"][0]) == 90).all()
    assert "sure" in grid["column_names"][0]["small"]


def test_the_sheet_is_five_by_four_with_the_same_noise(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB, {"view": "S x w sheet", "n": "1", "w": "2.0", "S": "120"})
    sheet = component_data(at)[-1]
    assert (sheet["columns"], len(sheet["cells"])) == (5, 20)
    assert [c["id"] for c in sheet["cells"] if c["chosen"]] == ["120|2.0"]
    (chosen,) = [c for c in sheet["cells"] if c["chosen"]]
    assert chosen["src"] == main_grid(component_data(at))["cells"][1]["src"]


def test_the_trajectory_ends_in_the_outlier(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"view": "Trajectory", "n": "1", "steps": "5"})
    strip = component_data(at)[-1]
    assert strip["columns"] == 6
    last = picture(strip["cells"][5]).astype(int)
    assert np.abs(last - picture(main_grid(component_data(at))["cells"][1])).mean() < 1


def test_the_scrub_frames_run_from_the_original_to_the_largest_s(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB, {"n": "1"})
    scrub = component_data(at)[-1]
    ids = [int(f["id"]) for f in scrub["frames"]]
    assert ids == sorted(set(ids))
    assert (ids[0], ids[-1]) == (0, 200)
    assert ids[scrub["at"]] == 100
    first = scrub["frames"][0]["pictures"]
    assert len(set(first)) == 1


def test_the_curve_marks_todays_s(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app(LAB, {"view": "S curve", "n": "2", "S": "75"})
    chart = at.get("plotly_chart")[0].proto.spec
    assert "S = 75" in chart
    assert "object changed" in chart


def test_two_people_at_once_get_their_own_pictures(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    one, two = open_app(LAB, {"draw": "1", "n": "2"}), open_app(LAB, {"draw": "2", "n": "2"})
    one.slider(key="S").set_value(50).run()
    two.slider(key="S").set_value(150).run()
    assert "S = 50 " in words(one)
    assert "S = 150 " in words(two)
    ids = [{c["alt"] for c in main_grid(component_data(at))["cells"][:2]} for at in (one, two)]
    assert not ids[0] & ids[1]


def test_the_zip_holds_the_pictures_and_their_manifest(shipped: Shipped) -> None:
    from sdviz.outliers import draw_target_labels
    from sdviz.ui.cache import Edit, make_edits
    from sdviz.ui.export import export_png, export_zip
    from sdviz.ui.lab_state import RANDOM_OTHER, LabState, Settings
    from sdviz.ui.sources import Source

    bundle = Bundle.load(shipped(), "cpu")
    images = data.load("shapes", "test", limit=3)
    recipe = bundle.recipe(100, 2.0, 3, "ddim", 0.5, (0.1, 0.3), 4)
    targets = draw_target_labels(images.labels, images.ids, 10, 4)
    sources = [
        Source(str(i), x, int(y), "", True)
        for i, x, y in zip(images.ids, images.images, images.labels, strict=True)
    ]
    wrong = [Edit(s.id, s.image, s.label, int(t), recipe) for s, t in zip(sources, targets, strict=True)]
    right = [Edit(s.id, s.image, s.label, s.label, recipe) for s in sources]
    made = make_edits(bundle, wrong + right)
    state = LabState(bundle, sources, Settings(recipe, RANDOM_OTHER), targets, made[:3], made[3:], 0)
    with zipfile.ZipFile(io.BytesIO(export_zip(state))) as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode())))
        assert len(rows) == 6
        for row in rows:
            image = np.asarray(Image.open(io.BytesIO(archive.read(row["file"]))))
            i = sources.index(next(s for s in sources if s.id == row["source_id"]))
            expected = made[i] if row["role"] == "outlier" else made[3 + i]
            assert np.array_equal(image, expected.outlier)
            assert (row["target_label"] == row["label"]) == (row["role"] == "control")
        assert rows[0]["bundle_sha256"] == bundle.hash
        used = [rows[0][k] for k in ("S", "w", "steps", "solver", "eta", "seed", "guidance_sigma_lo")]
        assert used == ["100", "2.0", "3", "ddim", "0.5", "4", "0.1"]
        assert float(rows[0]["sigma"]) == pytest.approx(0.339, abs=1e-3)
    sheet = np.asarray(Image.open(io.BytesIO(export_png(state))))
    corner = sheet[8 : 8 + 128 : 4, 118 : 118 + 128 : 4]
    assert np.array_equal(corner, sources[0].image)


def test_another_set_is_not_called_id_and_keeps_its_own_names(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    grid = main_grid(component_data(open_app(LAB, {"data": "shapes-novel", "n": "2"})))
    assert grid["row_names"][0]["small"] == "near-OOD"
    assert grid["row_names"][2]["small"] == "clusterer's label"
    novel = data.load("shapes-novel").class_names
    assert all(c["text"] in novel and "taken for" in c["small"] for c in grid["column_names"])


def test_the_interval_stands_in_the_captions_and_w_minus_1_tells_nothing(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB, {"n": "1", "w": "-1"})
    grid = main_grid(component_data(at))
    assert [grid["cells"][1]["text"], grid["cells"][2]["text"]] == ["told nothing", "told nothing"]
    at.slider(key="interval").set_value((0.1, 0.3)).run()
    assert "only for σ 0.1 to 0.3" in words(at)


def test_controls_keep_their_values_while_an_upload_is_awaited(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app(LAB)
    at.slider(key="S").set_value(60).run()
    at.selectbox(key="data").select("your own upload").run()
    assert at.slider(key="S").value == 60
    at.selectbox(key="data").select("shapes").run()
    assert at.slider(key="S").value == 60


def test_another_bundle_starts_from_its_own_defaults(shipped: Shipped, open_app: Open) -> None:
    shipped("a", max_s=200)
    (shipped("b", max_s=300) / "bundle.json").write_text(
        (shipped("b", max_s=300) / "bundle.json")
        .read_text()
        .replace('"start_timestep": 100', '"start_timestep": 40')
    )
    at = open_app(LAB)
    at.slider(key="S").set_value(150).run()
    at.selectbox(key="target").select("heart").run()
    at.selectbox(key="bundle").select("b").run()
    assert not at.exception
    assert at.slider(key="S").value == 40
    assert at.selectbox(key="target").value == "random other"
    assert "S" not in at.query_params
    assert "target" not in at.query_params
