from __future__ import annotations

import base64
import io
import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.bundle import Bundle
from tests.arrow_tables import table_of
from tests.cut_bundle import change_table

FAILURES = "pages/5_Failures.py"
AT_ONCE = 24
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


def scored(folder: Path) -> pd.DataFrame:
    """scores.parquet, with each image's own class and the cluster that g_in names, both in words."""
    table = pd.read_parquet(folder / "scores.parquet")
    names = np.array(json.loads((folder / "bundle.json").read_text())["class_names"])
    outputs = load_file(folder / "ood_features.safetensors")
    table["class"], table["cluster"] = "", ""
    for one, rows in table.groupby("set", sort=False).groups.items():
        source, split, _ = table["id"][rows[0]].split("/")
        labels, own = (
            table["label"][rows].to_numpy(),
            np.array([*data.load(source, split, limit=1).class_names, ""]),
        )
        table.loc[rows, "class"] = own[labels]  # -1, unknown, takes the last
        table.loc[rows, "cluster"] = names[outputs[f"{one}.g_in"].argmax(1)]
    return table


def threshold(table: pd.DataFrame, recall: float = 0.95) -> float:
    """The smallest ID score with that share of ID scores at or below it."""
    ordered = np.sort(table["total"][table["role"] == "id"])
    return float(ordered[math.ceil(round(recall * len(ordered), 6)) - 1])


def wrong(table: pd.DataFrame, t: float, false_alarms: bool) -> pd.DataFrame:
    """The images on the wrong side of the threshold, worst first, by numpy from the file."""
    if false_alarms:
        found = table[(table["role"] == "id") & (table["total"] > t)]
    else:
        found = table[(table["role"] != "id") & (table["total"] <= t)]
    margin = np.abs(found["total"].to_numpy() - t)
    order = np.argsort(-margin, kind="stable")
    return found.assign(margin=margin).iloc[order]


def list_on_show(grids: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that can be clicked."""
    found = [g for g in grids if g["cells"] and g["cells"][0]["id"]]
    return found[0]["cells"] if found else []


def picture(cell: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(cell["src"].split(",", 1)[1]))))


def texts(at: AppTest) -> str:
    return " | ".join(
        one.value for kind in ("markdown", "caption", "info", "success") for one in getattr(at, kind)
    )


def link(at: AppTest, key: str) -> str:
    value = at.query_params.get(key, "")
    return value if isinstance(value, str) else value[-1]


def test_missed_and_alarms_are_numpys_worst_first(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    table = scored(full_bundle())
    ood = table["total"][table["role"] != "id"].to_numpy()

    # 1. the bundle's own threshold: the one at 95 % ID recall
    at = open_page(FAILURES, {"f_show": "alarms"})
    t = threshold(table)
    alarms = wrong(table, t, True)
    assert 0 < len(alarms) < 40
    assert [c["id"] for c in list_on_show(component_data(at))] == alarms["id"].tolist()
    assert f"Threshold **{t:.4g}**" in texts(at)
    assert f"95.00 % of 40 held-out ID images pass, **{len(alarms)} false alarms**" in texts(at)
    counts = (table["total"] <= t).groupby(table["role"] == "validation").agg(["sum", "size"])
    n_id = (table["role"] == "id").sum()
    tested = f"{counts['sum'][False] - (n_id - len(alarms))} of {counts['size'][False] - n_id} test images"
    validation = f"{counts['sum'][True]} of {counts['size'][True]} validation images"
    assert f"Of 160 OOD images **{(ood <= t).sum()} are missed**: {tested}, {validation}." in texts(at)
    assert at.slider(key="failures_recall").value == 95.0

    # 2. one that lets 45 % of the OOD images through, from the link
    t = float(np.quantile(ood, 0.45))
    missed = wrong(table, t, False)
    at = open_page(FAILURES, {"t": repr(t)})
    assert len(missed) > AT_ONCE
    assert at.segmented_control(key="failures_show").value == "missed"
    assert at.segmented_control(key="failures_show").options[:2] == [
        f"Missed OOD: {len(missed)}",
        f"False alarms: {len(wrong(table, t, True))}",
    ]
    cells = list_on_show(component_data(at))
    for first in range(AT_ONCE, len(missed), AT_ONCE):
        at.button(key="failures_turn_1").click().run()
        assert f"{first + 1} to {min(first + AT_ONCE, len(missed))} of {len(missed)}" in texts(at)
        cells += list_on_show(component_data(at))
    assert [c["id"] for c in cells] == missed["id"].tolist()
    assert [c["small"] for c in cells] == [f"margin {m:#.3g}" for m in missed["margin"]]
    assert [c["text"] for c in cells] == [
        own or name for own, name in zip(missed["class"], missed["set"], strict=True)
    ]
    assert [c["alt"] for c in cells] == [
        f"{one}, {own or 'class unknown'}, score {s:.4g}"
        for one, own, s in zip(missed["id"], missed["class"], missed["total"], strict=True)
    ]
    # the picture of the first is that image's own
    first = missed.iloc[0]
    source, split, _ = first["id"].split("/")
    images = data.load(source, split)
    assert np.array_equal(picture(cells[0]), images.images[np.flatnonzero(images.ids == first["id"])[0]])


def test_under_an_sd_outlier_stands_what_it_is_made_of(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    folder = full_bundle()
    held_out = scored(folder).query("role == 'id'")
    images = data.load("shapes", "test")
    label = dict(zip(images.ids.tolist(), images.labels.tolist(), strict=True))

    def as_outliers(table: pd.DataFrame) -> pd.DataFrame:
        here = table["set"] == "digits"
        table.loc[here, "id"] = [f"{one}~0" for one in held_out["id"]]
        table.loc[here, "role"] = "sd"
        return table

    change_table(folder, "scores.parquet", as_outliers)
    at = open_page(FAILURES, {"t": repr(float(pd.read_parquet(folder / "scores.parquet")["total"].max()))})
    at.selectbox(key="failures_set").select("digits").run()
    cells = list_on_show(component_data(at))
    assert len(cells) == AT_ONCE
    for cell in cells:
        assert cell["text"] == f"outlier of {images.class_names[label[cell['id'].removesuffix('~0')]]}"
    assert "of an SD outlier that of its source" in texts(at)


def test_filters_by_set_class_and_cluster(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    table = scored(full_bundle())
    t = float(table["total"].max())
    missed = wrong(table, t, False)
    at = open_page(FAILURES, {"t": repr(t)})
    assert len(missed) == 160
    sets = at.selectbox(key="failures_set")
    assert sets.options == [
        "every set",
        "shapes-novel (near-OOD)",
        "shapes-empty (far-OOD)",
        "digits (far-OOD)",
        "shapes-novel-val (validation)",
    ]
    sets.select("digits").run()
    here = missed[missed["set"] == "digits"]
    assert link(at, "set") == "digits"
    assert [c["id"] for c in list_on_show(component_data(at))] == here["id"].tolist()[:AT_ONCE]
    assert at.selectbox(key="failures_f_class").options == ["every class", *sorted(set(here["class"]))]
    assert at.selectbox(key="failures_f_cluster").options == ["every cluster", *sorted(set(here["cluster"]))]

    digit = here.groupby("class")["cluster"].nunique().idxmin()
    at.selectbox(key="failures_f_class").select(digit).run()
    of_class = here[here["class"] == digit]
    assert [c["id"] for c in list_on_show(component_data(at))] == of_class["id"].tolist()
    cluster = of_class["cluster"].iloc[-1]
    at.selectbox(key="failures_f_cluster").select(cluster).run()
    both = of_class[of_class["cluster"] == cluster]
    assert 0 < len(both) < len(here[here["cluster"] == cluster])
    assert [c["id"] for c in list_on_show(component_data(at))] == both["id"].tolist()
    assert (link(at, "f_class"), link(at, "f_cluster")) == (digit, cluster)
    # nothing is both: that is said
    other = sorted(set(here["cluster"]) - set(of_class["cluster"]))[0]
    at.selectbox(key="failures_f_cluster").select(other).run()
    assert list_on_show(component_data(at)) == []
    assert "No failure has this class and this cluster" in texts(at)

    # the link alone brings the same list; a set without classes has no class to choose
    at = open_page(FAILURES, {"t": repr(t), "f_cluster": cluster})
    expected = missed[missed["cluster"] == cluster]["id"].tolist()
    assert [c["id"] for c in list_on_show(component_data(at))] == expected[:AT_ONCE]
    at = open_page(FAILURES, {"t": repr(t), "set": "shapes-empty"})
    assert at.selectbox(key="failures_f_class").disabled
    assert {c["text"] for c in list_on_show(component_data(at))} == {"shapes-empty"}


def test_rates_of_classes_and_clusters(full_bundle: Full, open_page: Open) -> None:
    table = scored(full_bundle())
    t = float(np.quantile(table["total"][table["set"] == "shapes-novel"], 0.6))
    at = open_page(FAILURES, {"t": repr(t), "set": "shapes-novel"})
    near = table[table["set"] == "shapes-novel"]
    for group, button in (("class", "by class"), ("cluster", "by cluster")):
        at.segmented_control(key="failures_by").set_value(button).run()
        shown = at.dataframe[-1].value
        expected = (near["total"] <= t).groupby(near[group]).agg(["sum", "size"])
        found = shown.set_index("group")
        assert len(found) == len(expected) > 3
        assert (found["called wrongly"].reindex(expected.index) == expected["sum"]).all()
        assert (found["images"].reindex(expected.index) == expected["size"]).all()
        percent = 100 * expected["sum"] / expected["size"]
        assert np.allclose(found["%"].reindex(expected.index), percent, atol=0.005)
        assert (np.diff(shown["at least, %"]) <= 0).all()
        bars = table_of(at.get("vega_lite_chart")[0].proto.data.data)
        failing = expected[expected["sum"] > 0]
        assert sorted(bars["x"]) == sorted(
            f"{name}, {row['sum']} of {row['size']}" for name, row in failing.iterrows()
        )
    # of several sets each label ends with its set and counts, whole
    at = open_page(FAILURES, {"t": repr(t)})
    sizes = (table[table["role"] != "id"]).groupby(["class", "set"]).size()
    labels = table_of(at.get("vega_lite_chart")[0].proto.data.data)["x"]
    assert len(labels) > 3
    for label in labels:
        name, _, rest = label.rpartition(" (")
        place, _, counts = rest.partition("), ")
        assert int(counts.split(" of ")[1]) == sizes[("" if name == "no class known" else name), place]
    # of false alarms: ID images by their own class
    low = float(np.median(table["total"][table["role"] == "id"]))
    at = open_page(FAILURES, {"t": repr(low), "f_show": "alarms"})
    held_out = table[table["role"] == "id"]
    expected = (held_out["total"] > low).groupby(held_out["class"]).sum()
    found = at.dataframe[-1].value.set_index("group")["called wrongly"]
    assert (found.reindex(expected.index) == expected).all()


def test_the_slider_moves_the_threshold_for_every_page(full_bundle: Full, open_page: Open) -> None:
    table = scored(full_bundle())
    at = open_page(FAILURES)
    assert link(at, "t") == ""
    at.slider(key="failures_recall").set_value(82.5).run()
    t = threshold(table, 0.825)
    assert float(link(at, "t")) == t
    assert at.slider(key="failures_recall").value == 82.5
    assert f"**{len(wrong(table, t, True))} false alarms**" in texts(at)
    # another share that asks for the same threshold: 33 of 40 images are the fewest that are 81 % of them
    at.slider(key="failures_recall").set_value(81.0).run()
    assert float(link(at, "t")) == t
    assert at.slider(key="failures_recall").value == 82.5
    # another page has it, and this one after it
    at.switch_page("pages/6_Results.py").run()
    assert float(link(at, "t")) == t
    at.switch_page(FAILURES).run()
    assert f"Threshold **{t:.4g}**" in texts(at)
    # back at 95 % the link is empty again
    at.slider(key="failures_recall").set_value(95.0).run()
    assert link(at, "t") == ""
    assert f"Threshold **{threshold(table):.4g}**" in texts(at)


@pytest.mark.parametrize("t", ["abc", "inf"])
def test_nonsense_in_the_link_is_harmless(full_bundle: Full, open_page: Open, t: str) -> None:
    table = scored(full_bundle())
    query = {
        "t": t,
        "f_show": "x",
        "f_class": "y",
        "f_cluster": "z",
        "set": "u",
        "sample": "no/such/1",
        "k": "q",
    }
    at = open_page(FAILURES, query)
    assert f"Threshold **{threshold(table):.4g}**" in texts(at)
    assert at.segmented_control(key="failures_show").value == "missed"
    assert ["There is no image `no/such/1`" in one.value for one in at.main.warning[-1:]] == [True]


@pytest.mark.parametrize("one", ["no/such/1", "shapes/test/99999", "cifar10/test/3"])
def test_nobody_judges_an_image_that_is_not_there(full_bundle: Full, open_page: Open, one: str) -> None:
    full_bundle()
    at = open_page(FAILURES, {"sample": one})
    (line,) = [each.value for each in at.main.warning]
    assert f"There is no image `{one}` in this bundle" in line and "no longer" not in line
    assert not at.text_area and not [each for each in at.button if each.key == "failures_open_votes"]
    assert "Grey stands in" not in texts(at)


def test_the_score_of_other_settings(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    """Another alpha: total = distance + alpha * votes, and the threshold moves along."""
    table = scored(full_bundle())
    table["total"] = table["distance"] + 0.3 * table["votes"]
    t = threshold(table)
    at = open_page(FAILURES, {"alpha": "0.3", "f_show": "alarms"})
    assert f"Threshold **{t:.4g}**" in texts(at)
    assert [c["id"] for c in list_on_show(component_data(at))] == wrong(table, t, True)["id"].tolist()


# --- near-duplicates ------------------------------------------------------------------------------


def unit(features: np.ndarray) -> np.ndarray:
    wide = features.astype(np.float32).astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def test_near_duplicates_are_those_of_brute_force(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    folder = full_bundle()
    banks, tests = load_file(folder / "features.safetensors"), load_file(folder / "ood_features.safetensors")
    rows = pd.read_parquet(folder / "features.parquet")
    ids = rows["id"][rows["role"] == "id"].to_numpy()
    outliers = rows["id"][rows["role"] == "outlier"].to_numpy()
    sources = pd.read_parquet(folder / "outliers.parquet").set_index("id")["source_id"][outliers].to_numpy()
    table = scored(folder)
    bank = unit(banks["id_features"])

    at = open_page(FAILURES, {"f_show": "pairs"})
    chooser = at.selectbox(key="failures_pairs")
    assert chooser.value == "shapes-novel"
    assert len(chooser.options) == 7
    usual = None
    for which in ("test", "digits", "shapes-novel", "outliers-nearest", "outliers-source"):
        at.selectbox(key="failures_pairs").select(which).run()
        assert link(at, "f_pairs") == which
        if which.startswith("outliers"):
            queries, names = unit(banks["outlier_features"]), outliers
        else:
            queries, names = unit(tests[which]), table["id"][table["set"] == which].to_numpy()
        d = np.linalg.norm(queries[:, None] - bank[None], axis=2)
        if which == "outliers-source":
            nearest = np.array([int(np.flatnonzero(ids == one)[0]) for one in sources])
        else:
            nearest = d.argmin(1)
        near = d[np.arange(len(d)), nearest]
        order = np.argsort(near, kind="stable")
        (grid,) = [g for g in component_data(at) if g["row_names"]]
        shown, below = grid["cells"][:20], grid["cells"][20:]
        assert np.allclose([float(c["text"]) for c in shown], near[order][:20], atol=6e-4)
        # of two equally near ones either may come first
        for top, bottom in zip(shown, below, strict=True):
            (row,) = np.flatnonzero(names == top["id"])
            assert f"{near[row]:.3f}" == top["text"]
            assert bottom["alt"] == ids[nearest[row]]
        assert [c["id"] for c in shown] == [c["id"] for c in below]
        says = texts(at)
        assert f"{len(near):,} pairs, distances {near.min():.3f} to {near.max():.3f}" in says
        assert f"median {np.median(near):.3f}" in says
        if which == "test":
            usual = float(np.median(near))
        else:
            assert usual is not None
            assert f"{int((near < usual).sum()):,} nearer than {usual:.3f}" in says
        if which == "outliers-nearest":
            own = 100 * float((ids[nearest] == sources).mean())
            assert f"For {own:.1f} % of them the nearest is their own source" in says
    # an outlier in detail: beside what it was made of
    at = open_page(FAILURES, {"f_show": "pairs", "f_pairs": "outliers-source", "sample": outliers[3]})
    (pair,) = [g for g in component_data(at) if len(g["cells"]) == 2]
    assert [c["alt"] for c in pair["cells"]] == [outliers[3], sources[3]]


# --- one image, notes -----------------------------------------------------------------------------


def test_next_and_previous_go_through_the_list(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    folder = full_bundle()
    table = scored(folder)
    t = float(table["total"].max())
    missed = wrong(table, t, False)
    ids = missed["id"].tolist()
    at = open_page(FAILURES, {"t": repr(t)})
    assert at.button(key="failures_previous").disabled
    assert "1 of 160 in this list" in texts(at)
    at.button(key="failures_next").click().run()
    assert link(at, "sample") == ids[1]
    at.button(key="failures_next").click().run()
    assert link(at, "sample") == ids[2]
    at.button(key="failures_previous").click().run()
    assert link(at, "sample") == ids[1]
    assert "2 of 160 in this list" in texts(at)
    assert [c["id"] for c in list_on_show(component_data(at)) if c["chosen"]] == [ids[1]]
    # what is said of it
    row = missed.iloc[1]
    nearest = unit(load_file(folder / "features.safetensors")["id_features"])
    own = unit(load_file(folder / "ood_features.safetensors")[row["set"]])
    at_row = np.flatnonzero(table["id"][table["set"] == row["set"]] == row["id"])[0]
    d = np.linalg.norm(nearest - own[at_row], axis=1)
    rows = pd.read_parquet(folder / "features.parquet")
    (pair,) = [g for g in component_data(at) if len(g["cells"]) == 2]
    assert pair["cells"][1]["alt"] == rows["id"][rows["role"] == "id"].to_numpy()[d.argmin()]
    assert f"distance {d.min():.3f}" in pair["cells"][1]["small"]
    held_out = table["total"][table["role"] == "id"].to_numpy()
    says = texts(at)
    assert f"**Missed OOD** (near-OOD): score **{row['total']:.4g}**" in says or row["role"] != "near"
    assert f"{row['margin']:#.3g} below the threshold {t:.4g}" in says
    assert f"More OOD than {100 * (held_out < row['total']).mean():.1f} % of held-out ID" in says
    assert f"Distance part {row['distance']:.4g} + α 0.01 x {row['votes']} votes of 10" in says
    # the last one of a list of more than one page: no next, and the page that it is on
    at = open_page(FAILURES, {"t": repr(t), "sample": ids[-1]})
    assert at.button(key="failures_next").disabled
    assert "160 of 160 in this list" in texts(at)
    assert list_on_show(component_data(at))[-1]["id"] == ids[-1]


def test_a_verdict_and_a_note_are_kept_and_exported(
    full_bundle: Full,
    open_page: Open,
    component_data: Read,
    files: dict[str, Callable[[], str]],
    tmp_path: Path,
) -> None:
    folder = full_bundle()
    table = scored(folder)
    t = float(table["total"].max())
    missed = wrong(table, t, False)
    first, second = missed.iloc[0], missed.iloc[1]
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    text = 'looks like a ring, "round" # one\nsecond line'

    at = open_page(FAILURES, {"t": repr(t)})
    assert "None yet on this bundle's images" in texts(at)
    assert not (tmp_path / "sdviz_runs" / "notes.sqlite").exists()
    (pills,) = [one for one in at.get("button_group") if one.label == "Verdict"]
    pills.set_value("label wrong").run()
    assert not at.exception
    at.text_area[0].set_value(text).run()
    assert not at.exception
    at.button(key="failures_next").click().run()
    assert at.text_area[0].value == ""
    at.text_area[0].set_value("=1+1").run()

    # 1. in SQLite beside the runs, under the bundle's hash; the bundle is as it was
    with sqlite3.connect(tmp_path / "sdviz_runs" / "notes.sqlite") as db:
        rows = db.execute("SELECT id, verdict, note, score, threshold, set_name, label FROM notes").fetchall()
    assert sorted(rows) == sorted(
        [
            (first["id"], "label wrong", text, first["total"], t, first["set"], first["class"]),
            (second["id"], "", "=1+1", second["total"], t, second["set"], second["class"]),
        ]
    )
    assert before == {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    # 2. another browser session finds both, and marks them in the list
    at = open_page(FAILURES, {"t": repr(t), "sample": first["id"]})
    assert at.text_area[0].value == text
    (pills,) = [one for one in at.get("button_group") if one.label == "Verdict"]
    assert pills.value == "label wrong"
    cells = list_on_show(component_data(at))
    assert [c["small"].partition(" ✎ ")[2] for c in cells[:3]] == ["label wrong", "note", ""]
    assert {m.label: m.value for m in at.metric} == {
        "really OOD": "0", "label wrong": "1", "semantics kept": "0", "nuisance lost": "0", "no verdict": "1",
    }  # fmt: skip

    # 3. the file has them, and the tallies
    (name,) = [one for one in files if one.startswith("sdviz-notes-")]
    written = files[name]()
    found = pd.read_csv(io.StringIO(written), comment="#", keep_default_na=False).set_index("id")
    assert found.loc[first["id"], "verdict"] == "label wrong"
    assert found.loc[first["id"], "note"] == text
    assert found.loc[second["id"], "note"] == "'=1+1"
    assert float(found.loc[first["id"], "score"]) == first["total"]
    assert float(found.loc[first["id"], "threshold"]) == t
    assert set(found["called"]) == {"ID"}
    head = [line for line in written.splitlines() if line.startswith("# ")]
    assert "# tally, label wrong: 1" in head and "# tally, no verdict: 1" in head
    assert any(Bundle.load(folder, "cpu").hash[:10] in line for line in head)

    # 4. the verdict is taken back, and with the note nothing is left
    pills.set_value(None).run()
    at.text_area[0].set_value("").run()
    assert {m.label: m.value for m in at.metric}["label wrong"] == "0"
    with sqlite3.connect(tmp_path / "sdviz_runs" / "notes.sqlite") as db:
        assert db.execute("SELECT id FROM notes").fetchall() == [(second["id"],)]


def test_notes_that_cannot_be_read_leave_the_page(full_bundle: Full, open_page: Open, tmp_path: Path) -> None:
    full_bundle()
    (tmp_path / "sdviz_runs" / "notes.sqlite").write_bytes(b"no database, for sure" * 100)
    at = open_page(FAILURES, {"f_show": "alarms"})
    assert "notes.sqlite cannot be read" in texts(at)
    assert "Traceback" not in texts(at)


# --- bundles that lack parts ----------------------------------------------------------------------


def test_without_a_bundle(open_page: Open) -> None:
    at = open_page(FAILURES)
    assert "There is no trained network on this machine yet" in texts(at)
    assert "every OOD image that the detector let through" in texts(at)
    assert "python -m sdviz run" in at.code[0].value


def test_without_a_detector(full_bundle: Full, open_page: Open) -> None:
    full_bundle(detector=False)
    at = open_page(FAILURES)
    assert "This bundle has no detector" in texts(at)
    assert "every OOD image that the detector let through" in texts(at)
    assert at.code[0].value
    assert not at.get("bidi_component") and not at.metric


@pytest.mark.parametrize(
    ("sets", "n"),
    [(("digits",), 40), (("shapes-novel", "digits"), 1), ((), 40)],
    ids=["one set", "one image", "no OOD"],
)
def test_few_sets_and_few_images(
    full_bundle: Full, open_page: Open, component_data: Read, sets: tuple[str, ...], n: int
) -> None:
    table = scored(full_bundle(sets=sets, n_per_set=n))
    at = open_page(FAILURES)
    for t in ("", repr(float(table["total"].max())), repr(float(table["total"].min()) / 2)):
        at.query_params["t"] = t
        now = float(t) if t else threshold(table)
        for kind in ("missed", "alarms"):
            at.query_params["f_show"] = kind
            at.run()
            assert not at.exception
            assert f"Threshold **{now:.4g}**" in texts(at)
            found = wrong(table, now, kind == "alarms")
            assert [c["id"] for c in list_on_show(component_data(at))] == found["id"].tolist()[:AT_ONCE]
            if kind == "missed" and not sets:
                assert "has no OOD set with scores" in texts(at)
            elif not len(found):
                assert ("No false alarm" if kind == "alarms" else "Nothing missed") in texts(at)
    at.query_params["f_show"] = "pairs"
    at.run()
    assert not at.exception
    assert len(at.selectbox(key="failures_pairs").options) == len(sets) + 3
    if not sets:
        assert at.selectbox(key="failures_pairs").value == "outliers-source"
    else:
        assert f"{n} pairs, distances" in texts(at) or n == 1


def test_images_that_are_not_on_this_machine(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    """They are named, their class is unknown, and a line says why; the rest is unchanged."""
    folder = full_bundle(sets=("digits", "shapes-empty"))
    change_table(
        folder, "scores.parquet", lambda t: t.assign(id=t["id"].str.replace("digits/test/", "cifar10/test/"))
    )
    table = pd.read_parquet(folder / "scores.parquet")
    t = float(table["total"].max())
    at = open_page(FAILURES, {"t": repr(t), "set": "digits"})
    cells = list_on_show(component_data(at))
    expected = wrong(table[table["set"] == "digits"], t, False)["id"].tolist()
    assert [c["id"] for c in cells] == expected[:AT_ONCE]
    assert cells[0]["src"] == "" and cells[0]["alt"].startswith("cifar10/test/")
    assert {c["text"] for c in cells} == {"digits"}
    assert "Named without a picture: cifar10 (test) is not on this machine." in texts(at)
    assert at.selectbox(key="failures_f_class").disabled
    groups = at.dataframe[-1].value
    assert groups["group"].tolist() == ["no class known"] and groups["images"].tolist() == [40]
