from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.bundle import MANIFEST, Bundle
from sdviz.ui.cache.outliers import made_count
from sdviz.ui.text import plain
from tests.tiny_runs import write_pictures

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


def texts(at: AppTest) -> str:
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


def test_a_bundle_of_a_folder_begins_with_it(
    shipped: Shipped, open_app: Open, component_data: Read, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "pets", 4, size_px=40)
    shipped(dataset=f"folder:{folder}")
    at = open_app(LAB)
    assert at.selectbox(key="data").value == f"folder:{folder}"
    assert "folder/pets/" in main_grid(component_data(at))["cells"][0]["alt"]
    folder.rename(tmp_path / "elsewhere")
    assert f"folder:{folder}" not in open_app(LAB).selectbox(key="data").options


def test_moving_s_changes_picture_and_caption_and_going_back_costs_nothing(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB)
    before = main_grid(component_data(at))["cells"][6]["src"]
    assert "S = 100 (σ 0.34)" in texts(at)
    at.slider(key="S").set_value(150).run()
    assert not at.exception
    assert "S = 150 (σ 0.52)" in texts(at)
    assert main_grid(component_data(at))["cells"][6]["src"] != before
    made = made_count["asked"]
    assert made > 0
    at.slider(key="S").set_value(100).run()
    assert main_grid(component_data(at))["cells"][6]["src"] == before
    assert made_count["asked"] == made


def test_w_counts_and_w_0_makes_one_call_a_step(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB)
    before = main_grid(component_data(at))["cells"][6]["src"]
    assert "2 network calls, 4 evaluations" in texts(at)
    at.slider(key="w").set_value(0.0).run()
    assert main_grid(component_data(at))["cells"][6]["src"] != before
    assert "2 network calls, 2 evaluations" in texts(at)


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
    grid = main_grid(component_data(at))
    assert (grid["columns"], len(grid["cells"])) == (count, 5 * count)


def test_the_url_restores_the_view(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    query = {"S": "150", "w": "3.5", "n": "3", "draw": "7", "target": "star", "steps": "4"}
    query["solver"] = "DPM-Solver++(2M)"
    at = open_app(LAB, query)
    assert at.slider(key="S").value == 150
    assert at.slider(key="w").value == 3.5
    assert at.selectbox(key="target").value == "star"
    assert "DPM-Solver++(2M), 4 network calls" in texts(at)
    grid = main_grid(component_data(at))
    again = main_grid(component_data(open_app(LAB, query)))
    assert [c["src"] for c in grid["cells"]] == [c["src"] for c in again["cells"]]
    other = main_grid(component_data(open_app(LAB, query | {"draw": "8"})))
    assert [c["src"] for c in grid["cells"]] != [c["src"] for c in other["cells"]]


def refusal(at: AppTest) -> str:
    return " ".join(c.value for c in at.caption if c.value.startswith("Not taken from the link"))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("S", "9999", "0 to 200"),
        ("S", "-5", "0 to 200"),
        ("S", "half", "0 to 200"),
        ("w", "nan", "-1 to 8"),
        ("w", "20", "-1 to 8"),
        ("data", "no such set", "a set of this machine"),
        ("class", "dragon", "a class of the set"),
        ("n", "40", "1 to 16"),
        ("draw", "-1", "0 to 9,999"),
        ("pick", "x,../y", "up to 16 ids of the set"),
        ("target", "dragon", "a cluster of the bundle"),
        ("solver", "euler", "DDIM, DDPM, ancestral, DPM-Solver++(2M)"),
        ("steps", "0", "1 to 100"),
        ("eta", "2", "0 to 1"),
        ("seed", "1e99", "0 to 2147483647"),
        ("interval", "7", "two of 0 to 0.72"),
        ("view", "Hologram", "one that these images have"),
        ("focus", "7", "one of the images on show"),
        ("focus", "`**bold**`", "one of the images on show"),
    ],
)
def test_what_the_link_asks_for_in_vain_is_said(
    shipped: Shipped, open_app: Open, key: str, value: str, allowed: str
) -> None:
    shipped()
    at = open_app(LAB, {key: value})
    assert at.slider(key="S").value == 100
    assert at.slider(key="w").value == 2.0
    assert f"{key} = `{value.replace('`', chr(39))}` (here: {allowed})" in refusal(at)
    assert key not in at.query_params
    at.slider(key="n").set_value(2).run()
    assert refusal(at) == ""


def test_an_interval_given_backwards_is_turned_round(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app(LAB, {"interval": ["0.3", "0.1"]})
    assert "only for σ 0.1 to 0.3" in texts(at)


def test_a_bundle_that_is_not_there_is_said(shipped: Shipped, open_app: Open) -> None:
    shipped()
    assert "bundle = `nobody`" in refusal(open_app(query={"bundle": "nobody"}))


def test_a_good_link_is_taken_without_a_word(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app(
        LAB,
        {
            "data": "shapes-novel",
            "n": "3",
            "draw": "12",
            "S": "65",
            "w": "-0.5",
            "target": "heart",
            "solver": "DDIM",
            "steps": "7",
            "eta": "0.25",
            "seed": "11",
            "view": "S x w sheet",
            "focus": "3",
            "bundle": "tiny",
        },
    )
    assert refusal(at) == ""
    assert "S = 65 (σ 0.22), w = -0.5, DDIM, 7 network calls" in texts(at)


def test_the_link_names_the_image_in_focus(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"n": "4", "focus": "3", "view": "Trajectory"})
    grid = main_grid(component_data(at))
    assert [i for i, cell in enumerate(grid["cells"]) if cell["chosen"]] == [2, 6]
    assert "About image 3 of 4" in texts(at)
    # the image in focus has gone: the first is, and the address says so
    at.slider(key="n").set_value(2).run()
    assert "About image 1 of 2" in texts(at)
    assert "focus" not in at.query_params


def test_picks_end_with_their_set(shipped: Shipped, open_app: Open) -> None:
    shipped()
    at = open_app(LAB, {"pick": "shapes/test/00005,shapes/test/00002"})
    at.selectbox(key="data").select("digits").run()
    assert not at.exception
    assert "pick" not in at.query_params
    assert not at.slider(key="n").disabled


def leave_and_return(at: AppTest) -> None:
    at.switch_page("app.py").run()
    assert not at.exception
    at.query_params.clear()
    at.switch_page(LAB).run()
    assert not at.exception


def test_settings_survive_a_visit_to_another_page(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    picked = "shapes/test/00005,shapes/test/00002"
    at = open_app(LAB, {"pick": picked, "focus": "2"})
    at.slider(key="S").set_value(60).run()
    at.slider(key="w").set_value(5.0).run()
    before = main_grid(component_data(at))["cells"]
    leave_and_return(at)
    assert (at.slider(key="S").value, at.slider(key="w").value) == (60, 5.0)
    assert main_grid(component_data(at))["cells"] == before
    assert at.query_params["pick"] == picked
    assert at.query_params["focus"] == "2"


def test_picked_images_stand_in_for_the_draw(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"pick": "shapes/test/00005,shapes/test/00002"})
    cells = main_grid(component_data(at))["cells"]
    assert [c["alt"].split(", ")[1] for c in cells[:2]] == ["shapes/test/00005", "shapes/test/00002"]


def test_without_known_classes_a_cluster_has_its_number_alone(
    shipped: Callable[..., Path], open_page: Callable[..., AppTest]
) -> None:
    folder = shipped()
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["class_names"][5] = "cluster 5, often bird and frog"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    for truth, name in (("", "cluster 5"), ("1", "cluster 5, often bird and frog")):
        query = {"truth": truth} if truth else {}
        # a link may have either name
        for target in ("cluster 5", "cluster 5, often bird and frog"):
            at = open_page("pages/1_Outlier_lab.py", query | {"target": target})
            assert at.selectbox(key="target").value == name
            assert name in at.selectbox(key="target").options
            assert "Not taken from the link" not in " ".join(one.value for one in at.caption)


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
    assert at.code[0].value == "python -m sdviz run configs/shapes-quick.yaml"
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


def _encoded(kind: str, image: Image.Image, **how: Any) -> bytes:  # noqa: ANN401
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def test_odd_pictures_are_converted_and_shown_as_used(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    red, blue = Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 200))
    halves = Image.new("RGB", (64, 64))
    halves.paste((255, 255, 255), (0, 0, 64, 32))
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    at = open_app(LAB, {"data": "your own upload"})
    at.file_uploader[0].set_value(
        [
            ("animated.gif", _encoded("GIF", red, save_all=True, append_images=[blue]), "image/gif"),
            ("alpha.png", _encoded("PNG", Image.new("RGBA", (64, 64), (0, 0, 0, 0))), "image/png"),
            ("cmyk.jpg", _encoded("JPEG", blue.convert("CMYK")), "image/jpeg"),
            ("turned.png", _encoded("PNG", halves, exif=turned), "image/png"),
        ]
    ).run()
    assert not at.exception
    assert not at.error
    first, clear, cmyk, upright = (picture(c) for c in main_grid(component_data(at))["cells"][:4])
    assert np.abs(first.astype(int) - (200, 0, 0)).max() < 8
    assert (clear == 255).all()
    assert np.abs(cmyk.astype(int) - (0, 0, 200)).max() < 12
    assert upright[:14].max() == 0
    assert upright[18:].min() == 255


def test_the_same_file_twice_is_shown_once_and_said(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB, {"data": "your own upload"})
    one, other = _png((40, 40)), _png((50, 40))
    named = [("a.png", one), ("b.png", one), ("c.png", other), ("d.png", b"none"), ("e.png", b"none")]
    at.file_uploader[0].set_value([(name, blob, "image/png") for name, blob in named]).run()
    assert main_grid(component_data(at))["columns"] == 2
    assert "1 file of yours, byte for byte the same as another, shown once." in texts(at)
    assert len(at.error) == 2
    at.file_uploader[0].set_value([("a.png", one, "image/png")]).run()
    assert "byte for byte" not in texts(at)


def test_uploads_survive_a_visit_to_another_page(
    shipped: Shipped, open_app: Open, component_data: Read
) -> None:
    shipped()
    at = open_app(LAB, {"data": "your own upload"})
    at.file_uploader[0].set_value([("a.png", _png((40, 40)), "image/png")]).run()
    assert "kept from before" not in texts(at)
    before = main_grid(component_data(at))["cells"]
    leave_and_return(at)
    assert "1 uploaded picture kept from before." in texts(at)
    assert main_grid(component_data(at))["cells"] == before
    # another set and back, then one more picture, which comes first
    at.selectbox(key="data").select("digits").run()
    at.selectbox(key="data").select("your own upload").run()
    at.file_uploader[0].set_value([("b.png", _png((50, 40), "L"), "image/png")]).run()
    grid = main_grid(component_data(at))
    assert grid["columns"] == 2
    assert grid["cells"][1]["src"] == before[0]["src"]
    at.button(key="clear_uploads").click().run()
    assert main_grid(component_data(at))["columns"] == 1
    assert "kept from before" not in texts(at)
    # taken out of the uploader by hand is gone for good
    at.file_uploader[0].set_value([]).run()
    assert "Drop pictures" in at.info[0].value


def test_seventeen_uploads_are_one_too_many(shipped: Shipped, open_app: Open, component_data: Read) -> None:
    shipped()
    at = open_app(LAB, {"data": "your own upload", "view": "Download"})
    at.file_uploader[0].set_value([(f"{i}.png", _png((20 + i, 20)), "image/png") for i in range(17)]).run()
    assert main_grid(component_data(at))["columns"] == 16
    assert at.warning[0].value == "Only the first 16 of 17 files are used."


def _write_parquet(path: Path, pixels: list[int], labels: list[int], names: list[str]) -> None:
    images = [{"bytes": _encoded("PNG", Image.new("RGB", (32, 32), (v, v, v))), "path": None} for v in pixels]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"img": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata({"class_names": json.dumps(names)}), path)


def test_a_set_of_one_image_of_one_class(
    shipped: Shipped, open_app: Open, component_data: Read, tmp_path: Path
) -> None:
    shipped()
    _write_parquet(tmp_path / "sdviz_data" / "lone.parquet", [50], [0], ["stone"])
    at = open_app(LAB, {"data": "lone"})
    assert not at.error
    grid = main_grid(component_data(at))
    assert grid["columns"] == 1
    assert grid["column_names"][0]["text"] == "stone"
    assert at.selectbox(key="class").options == ["any class", "stone"]


def test_an_empty_set_is_said(shipped: Shipped, open_app: Open, tmp_path: Path) -> None:
    shipped()
    _write_parquet(tmp_path / "sdviz_data" / "nothing.parquet", [], [], ["stone"])
    at = open_app(LAB, {"data": "nothing"})
    assert "nothing" in at.error[0].value
    assert "\n" not in at.error[0].value


def test_a_class_without_images_is_said(shipped: Shipped, open_app: Open, tmp_path: Path) -> None:
    shipped()
    _write_parquet(tmp_path / "sdviz_data" / "half.parquet", [50, 60], [0, 0], ["stone", "cloud"])
    at = open_app(LAB, {"data": "half", "class": "cloud"})
    assert at.info[0].value == "half has no image of the class cloud here: choose another class."


def test_a_broken_picture_in_a_set_is_named(shipped: Shipped, open_app: Open, tmp_path: Path) -> None:
    shipped()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": _png((32, 32))[:50], "path": None}], kind)
    pq.write_table(pa.table({"img": images}), tmp_path / "sdviz_data" / "torn.parquet")
    at = open_app(LAB, {"data": "torn"})
    assert "torn" in at.error[0].value
    assert at.slider(key="S").value == 100


def test_a_damaged_bundle_leaves_the_lab_open(shipped: Shipped, open_app: Open) -> None:
    path = shipped()
    (path / "clusterer.safetensors").unlink()
    at = open_app(LAB)
    assert "clusterer.safetensors" in " ".join(m.value for m in at.markdown)
    assert not at.slider


def test_a_pickle_in_a_bundle_is_refused_by_name(shipped: Shipped, open_app: Open) -> None:
    path = shipped()
    (path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04N.")
    at = open_app(LAB)
    assert plain("diffusion_pytorch_model.bin") in " ".join(m.value for m in at.markdown)


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


def test_the_text_below_the_strip_agrees_with_the_count_above(
    shipped: Shipped, open_app: Open, component_data: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(shipped(), "cpu")
    at = open_app(LAB, {"n": "1"})
    control = main_grid(component_data(at))["cells"][2]
    label = bundle.class_names.index(control["text"].removeprefix("told "))
    for seen, changed in ((label, 0), ((label + 1) % 10, 1)):
        monkeypatch.setattr(
            Bundle, "pseudo_label", lambda self, images, seen=seen: (np.full(len(images), seen), None)
        )
        at.run()
        assert at.metric[0].value == f"{changed} of 1"
        assert ("Watch the object go" in texts(at)) == bool(changed)
        assert ("still calls 1 of 1 outlier what the original is" in texts(at)) == (not changed)


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
    assert "S = 50 " in texts(one)
    assert "S = 150 " in texts(two)
    ids = [{c["alt"] for c in main_grid(component_data(at))["cells"][:2]} for at in (one, two)]
    assert not ids[0] & ids[1]


def test_the_zip_holds_the_pictures_and_their_manifest(shipped: Shipped) -> None:
    from sdviz.outliers import OutlierRequest, draw_target_labels
    from sdviz.ui.cache.outliers import make_outliers
    from sdviz.ui.lab.export import export_png, export_zip
    from sdviz.ui.lab.sources import SourceImage
    from sdviz.ui.lab.state import RANDOM_OTHER, LabState, Settings

    bundle = Bundle.load(shipped(), "cpu")
    images = data.load("shapes", "test", limit=3)
    recipe = bundle.recipe(100, 2.0, 3, "ddim", 0.5, (0.1, 0.3), 4)
    targets = draw_target_labels(images.labels, images.ids, 10, 4)
    sources = [
        SourceImage(str(i), x, int(y), "", True)
        for i, x, y in zip(images.ids, images.images, images.labels, strict=True)
    ]
    wrong = [
        OutlierRequest(s.id, s.image, s.label, int(t), recipe) for s, t in zip(sources, targets, strict=True)
    ]
    right = [OutlierRequest(s.id, s.image, s.label, s.label, recipe) for s in sources]
    made = make_outliers(bundle, wrong + right)
    state = LabState(
        bundle, bundle.class_names, sources, Settings(recipe, RANDOM_OTHER), targets, made[:3], made[3:], 0
    )
    with zipfile.ZipFile(io.BytesIO(export_zip(state))) as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode("utf-8-sig"))))
        assert len(rows) == 6
        for row in rows:
            image = np.asarray(Image.open(io.BytesIO(archive.read(row["file"]))))
            i = sources.index(next(s for s in sources if s.id == row["source_id"]))
            expected = made[i] if row["role"] == "outlier" else made[3 + i]
            assert np.array_equal(image, expected.image)
            assert (row["target_label"] == row["label"]) == (row["role"] == "control")
        assert rows[0]["bundle_sha256"] == bundle.hash
        used = [rows[0][k] for k in ("S", "w", "steps", "solver", "eta", "seed", "guidance_sigma_lo")]
        assert used == ["100", "2.0", "3", "ddim", "0.5", "4", "0.1"]
        assert float(rows[0]["sigma"]) == pytest.approx(0.339, abs=1e-3)
    sheet = np.asarray(Image.open(io.BytesIO(export_png(state))))
    corner = sheet[8 : 8 + 128 : 4, 118 : 118 + 128 : 4]
    assert np.array_equal(corner, sources[0].image)


def test_another_set_is_not_called_id_and_keeps_its_own_names(
    full_bundle: Callable[..., Path], open_app: Open, component_data: Read
) -> None:
    full_bundle()
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
    assert "only for σ 0.1 to 0.3" in texts(at)


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
