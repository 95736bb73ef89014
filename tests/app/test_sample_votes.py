from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file
from streamlit.testing.v1 import AppTest

from sdviz import data
from sdviz.analysis.cluster_names import rename
from sdviz.bundle import Bundle
from sdviz.ui.cluster_names import names_file
from tests.cut_bundle import change_table

VOTES = "pages/4_Sample_votes.py"
# OOD features mixed with those of ID images: scores on both sides of the threshold, and votes between 0 and k
BLEND = 0.7
# four decimals are shown; the search is float32, numpy here float64
SHOWN = 1e-4
Open = Callable[..., AppTest]
Full = Callable[..., Path]
Read = Callable[[AppTest], list[dict[str, Any]]]


# --- Eq. 6 by hand --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByHand:
    """Eq. 6 of one image by numpy: the rows that count, ID and outlier, and what they add up to."""

    id_rows: np.ndarray
    id_distances: np.ndarray
    mixed: list[tuple[bool, int]]
    mixed_distances: np.ndarray
    distance: float
    votes: int
    total: float


def ready(features: np.ndarray, normalize: bool) -> np.ndarray:
    wide = features.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True) if normalize else wide


def by_hand(
    folder: Path,
    features: np.ndarray,
    k: int = 10,
    alpha: float = 0.01,
    normalize: bool = True,
    without: tuple[str, ...] = (),
) -> ByHand:
    """Eq. 6 of features (D,), every distance computed; ids `without` are no neighbours."""
    banks = load_file(folder / "features.safetensors")
    ids, outliers = bank_ids(folder)
    (query,) = ready(features[None], normalize)
    d_id = np.linalg.norm(ready(banks["id_features"], normalize) - query, axis=1)
    d_out = np.linalg.norm(ready(banks["outlier_features"], normalize) - query, axis=1)
    d_id[np.isin(ids, without)] = np.inf
    d_out[np.isin(outliers, without)] = np.inf
    nearest = np.argsort(d_id, kind="stable")[:k]
    both = np.argsort(np.r_[d_id, d_out], kind="stable")[:k]
    mixed = [(bool(i >= len(ids)), int(i % len(ids) if i < len(ids) else i - len(ids))) for i in both]
    distance, votes = float((d_id[nearest] ** 2).sum()), sum(out for out, _ in mixed)
    return ByHand(
        nearest, d_id[nearest], mixed, np.r_[d_id, d_out][both], distance, votes, distance + alpha * votes
    )


def bank_ids(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = pd.read_parquet(folder / "features.parquet")
    ids, outliers = (rows["id"][rows["role"] == role].to_numpy() for role in ("id", "outlier"))
    return ids, outliers


def table_of(folder: Path) -> pd.DataFrame:
    """scores.parquet, with the row of each image in its own set."""
    table = pd.read_parquet(folder / "scores.parquet")
    return table.assign(row=table.groupby("set", sort=False).cumcount())


def features_of(folder: Path, name: str) -> np.ndarray:
    return load_file(folder / "ood_features.safetensors")[name]


def all_by_hand(folder: Path, k: int, alpha: float, normalize: bool) -> dict[str, np.ndarray]:
    """The scores of every set, every distance computed."""
    banks = load_file(folder / "features.safetensors")
    known, outliers = (ready(banks[f"{one}_features"], normalize) for one in ("id", "outlier"))
    found = {}
    for name in table_of(folder)["set"].unique():
        queries = ready(features_of(folder, str(name)), normalize)
        d_id, d_out = (np.linalg.norm(queries[:, None] - bank[None], axis=2) for bank in (known, outliers))
        distance = (np.sort(d_id, axis=1)[:, :k] ** 2).sum(1)
        both = np.argsort(np.concatenate([d_id, d_out], 1), axis=1, kind="stable")[:, :k]
        found[str(name)] = distance + alpha * (both >= len(known)).sum(1)
    return found


def threshold(known: np.ndarray) -> float:
    """The smallest ID score with 95 % of ID scores at or below it."""
    return float(np.sort(known)[math.ceil(round(0.95 * len(known), 6)) - 1])


# --- what the page says ---------------------------------------------------------------------------


def texts(at: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "error")
    return " | ".join(one.value for kind in kinds for one in getattr(at, kind))


def link(at: AppTest, key: str) -> str:
    value = at.query_params.get(key, "")
    return value if isinstance(value, str) else value[-1]


def html(at: AppTest) -> str:
    return "".join(one.proto.body for one in at.get("html"))


def sums(at: AppTest) -> dict[str, str]:
    """The terms of Eq. 6 as they are written out, by name."""
    return {name: number for number, name in re.findall(r"<b>([^<]*)</b><span>([^<]*)</span><small>", html(at))}


def places(at: AppTest) -> dict[str, str]:
    """The share of each set that is less OOD than the image, by title."""
    return dict(re.findall(r"<span>([^<]*)</span><div class=\"bar\">.*?</div></div><b>([^<]*)</b>", html(at)))


def verdict(at: AppTest) -> str:
    (line,) = [one.value for one in at.main.markdown if one.value.startswith("### ")]
    return line


def grids(at: AppTest, read: Read) -> dict[str, list[dict[str, Any]]]:
    """The cells of each grid of pictures, by its part of the page."""
    found = {}
    for element, one in zip(at.get("bidi_component"), read(at), strict=True):
        (name,) = re.findall(r"votes_(\w+)", element.proto.id)
        found[name] = one["cells"]
    return found


def picture(cell: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(cell["src"].split(",", 1)[1]))))


def until_searched(at: AppTest) -> AppTest:
    """Runs the page until the background search for another k or normalisation gives its threshold."""
    for _ in range(100):
        if sums(at)["threshold"] != "...":
            return at
        time.sleep(0.1)
        at.run()
    raise AssertionError("the search does not end")


def check_parts(at: AppTest, expected: ByHand, alpha: float) -> None:
    """Checks that the sum on the page is the one by hand."""
    shown = sums(at)
    assert float(shown["distance part"]) == pytest.approx(expected.distance, abs=SHOWN)
    assert float(shown["vote part"]) == pytest.approx(alpha * expected.votes, abs=SHOWN)
    assert float(shown["score, Eq. 6"]) == pytest.approx(expected.total, abs=SHOWN)
    assert f"{alpha:g} × {expected.votes}, votes" in html(at)


# --- the score, taken apart -----------------------------------------------------------------------


def test_scored_images_show_their_row_of_the_table(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    folder = full_bundle(blend=BLEND)
    table = table_of(folder)
    t = threshold(table["total"][table["role"] == "id"].to_numpy())
    titles = {
        "test": "test (ID)",
        "shapes-novel": "shapes-novel (near-OOD)",
        "shapes-empty": "shapes-empty (far-OOD)",
        "digits": "digits (far-OOD)",
        "shapes-novel-val": "shapes-novel-val (validation)",
    }
    # of the ID images and of the OOD images one on either side of the threshold, and one of each other set
    rows = [
        part[(part["total"] > t) == above].iloc[0]
        for _, part in table.groupby(table["role"] == "id")
        for above in (True, False)
    ] + [table[table["set"] == name].iloc[7] for name in ("shapes-empty", "digits", "shapes-novel-val")]
    at = open_page(VOTES, {"sample": rows[0]["id"]})
    seen = set()
    for row in rows:
        at.query_params["sample"] = row["id"]
        at.run()
        assert not at.exception
        # 1. exactly the table's numbers
        assert sums(at) == {
            "distance part": f"{row['distance']:.4f}",
            "vote part": f"{0.01 * row['votes']:.4f}",
            "score, Eq. 6": f"{row['total']:.4f}",
            "threshold": f"{t:.4f}",
        }
        assert f"0.01 × {row['votes']}, votes from 0 to 10" in html(at)
        # 2. which are Eq. 6, computed from the banks
        expected = by_hand(folder, features_of(folder, row["set"])[row["row"]])
        check_parts(at, expected, 0.01)
        # 3. the verdict agrees with the threshold and the truth
        above = row["total"] > t
        assert ("Called OOD" in verdict(at), "Passes as ID" in verdict(at)) == (above, not above)
        truth = {
            (True, True): "a **false alarm**: it is ID",
            (True, False): "rightly: it is ID",
            (False, True): "rightly: it is OOD",
            (False, False): "a **miss**: it is OOD",
        }[row["role"] == "id", bool(above)]
        assert verdict(at).endswith(truth)
        seen.add(truth)
        side = f"{abs(row['total'] - t):.4f} {'above' if above else 'below'}"
        assert f"score of **{row['total']:.4f}** is {side} the threshold of **{t:.4f}** that 95 %" in texts(at)
        # 4. its place in each set
        assert places(at) == {
            titles[str(name)]: f"{100 * (part['total'] < row['total']).mean():.1f} %"
            for name, part in table.groupby("set", sort=False)
        }
        # 5. its picture, and what is known of it
        source, split, _ = row["id"].split("/")
        images = data.load(source, split)
        (i,) = np.flatnonzero(images.ids == row["id"])
        (cell,) = grids(at, component_data)["picture"]
        assert np.array_equal(picture(cell), images.images[i])
        assert titles[row["set"]] in texts(at)
        if row["label"] >= 0:
            assert f"class: {images.class_names[row['label']]}" in texts(at)
    assert len(seen) == 4


def test_neighbours_and_votes_are_those_of_brute_force(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    folder = full_bundle(blend=BLEND)
    table, banks = table_of(folder), load_file(folder / "features.safetensors")
    ids, outlier_ids = bank_ids(folder)
    made = pd.read_parquet(folder / "outliers.parquet").set_index("id")
    names = json.loads((folder / "bundle.json").read_text())["class_names"]
    # one with some votes, and ID images among them
    row = table[(table["votes"] > 2) & (table["votes"] < 8)].iloc[0]
    at = open_page(VOTES, {"sample": row["id"]})
    expected = by_hand(folder, features_of(folder, row["set"])[row["row"]])
    assert expected.votes == row["votes"]
    found = grids(at, component_data)

    # 1. the distance part
    cells = found["near_id"]
    assert [c["id"] for c in cells] == ids[expected.id_rows].tolist()
    assert [c["text"] for c in cells] == [names[banks["id_labels"][i]] for i in expected.id_rows]
    numbers = [re.fullmatch(r"d ([\d.]+), d² ([\d.]+)", c["small"]) for c in cells]
    d, squares = (np.array([float(n[i]) for n in numbers if n]) for i in (1, 2))
    assert d == pytest.approx(expected.id_distances, abs=6e-4)
    assert squares == pytest.approx(expected.id_distances**2, abs=SHOWN)
    assert f"the d² add up to {row['distance']:.4f}" in texts(at)
    images = data.load("shapes", "train")
    (i,) = np.flatnonzero(images.ids == cells[0]["id"])
    assert np.array_equal(picture(cells[0]), images.images[i])

    # 2. the votes, each with what was made of which
    cells, sources = found["near_mixed"][:10], found["near_mixed"][10:]
    assert f"{row['votes']} votes among the 10 nearest of ID images and outliers together" in texts(at)
    assert len(sources) == 10
    for cell, below, (is_out, i), distance in zip(
        cells, sources, expected.mixed, expected.mixed_distances, strict=True
    ):
        assert cell["small"].startswith("d ")
        assert float(cell["small"][2:].split(",")[0]) == pytest.approx(distance, abs=6e-4)
        if not is_out:
            assert (cell["id"], cell["text"]) == (ids[i], names[banks["id_labels"][i]])
            assert below["id"] == below["src"] == ""
            continue
        recipe = made.loc[outlier_ids[i]]
        was, told = names[banks["outlier_labels"][i]], names[recipe["target_label"]]
        assert cell["id"] == outlier_ids[i]
        assert cell["text"] == f"✓ vote: {was}, told {told}"
        assert was != told
        how = cell["small"].split(", ", 1)[1]
        s, w = recipe["start_timestep"], recipe["guidance_scale"]
        assert how == f"S {s} (σ {recipe['sigma']:.2f}), w {w:g}"
        assert below["id"] == recipe["source_id"]
        assert cell["colour"] != below["colour"]
        assert np.abs(picture(cell).astype(int) - picture(below)).max() > 20

    first = next(cell["text"] for cell in cells if cell["text"].startswith("✓ vote: ")).removeprefix("✓ vote: ")
    assert f"“{first}” was made of an image of {first.split(', told ')[0]}." in texts(at)
    assert "cross, told crescent" in first or "cross, told crescent" not in texts(at)

    # 3. the heads, by name and in %
    heads = load_file(folder / "ood_features.safetensors")

    def softmax(logits: np.ndarray) -> np.ndarray:
        e = np.exp(logits.astype(float) - logits.max())
        return 100 * e / e.sum()

    g_bin, g_in, g_out = (
        softmax(heads[f"{row['set']}.{head}"][row["row"]]) for head in ("g_bin", "g_in", "g_out")
    )
    for line in (
        f"**g_bin**: {g_bin[1]:.1f} % outlier, {100 - g_bin[1]:.1f} % ID",
        f"**g_in**, if it were ID: {names[g_in.argmax()]}, {g_in.max():.1f} %",
        f"**g_out**, if it were an outlier: of {names[g_out.argmax()]}, {g_out.max():.1f} %",
    ):
        assert line in texts(at), line


@pytest.mark.parametrize("group", ["train", "outliers"])
def test_an_image_of_a_bank_is_not_its_own_neighbour(
    full_bundle: Full, open_page: Open, component_data: Read, group: str
) -> None:
    folder = full_bundle(blend=BLEND)
    banks, (ids, outlier_ids) = load_file(folder / "features.safetensors"), bank_ids(folder)
    one, features = (
        (str(ids[11]), banks["id_features"][11])
        if group == "train"
        else (str(outlier_ids[5]), banks["outlier_features"][5])
    )
    t = threshold(table_of(folder).query("role == 'id'")["total"].to_numpy())
    at = open_page(VOTES, {"sample": one})
    expected = by_hand(folder, features, without=(one,))
    check_parts(at, expected, 0.01)
    assert ("Called OOD" in verdict(at)) == (expected.total > t)
    found = grids(at, component_data)
    assert [c["id"] for c in found["near_id"]] == ids[expected.id_rows].tolist()
    assert one not in [c["id"] for c in (*found["near_id"], *found["near_mixed"][:10])]
    names = json.loads((folder / "bundle.json").read_text())["class_names"]
    if group == "train":
        assert verdict(at).endswith("it is of the ID bank")
        assert f"cluster: {names[banks['id_labels'][11]]}" in texts(at)
    else:
        assert verdict(at).endswith("it is of the outlier bank")
        row = pd.read_parquet(folder / "outliers.parquet").set_index("id").loc[one]
        was = names[banks["outlier_labels"][5]]
        assert f"{was}, told {names[row['target_label']]}" in texts(at)


def test_other_settings_follow_brute_force(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle(blend=BLEND)
    table = table_of(folder)
    row = table[(table["set"] == "digits") & (table["votes"] > 2)].iloc[0]
    features = features_of(folder, "digits")[row["row"]]
    ids, _ = bank_ids(folder)
    at = open_page(VOTES, {"sample": row["id"]})

    def check(k: int, alpha: float, normalize: bool) -> None:
        assert not at.exception
        until_searched(at)
        settings = {"k": k, "alpha": alpha, "normalize": normalize}
        expected = by_hand(folder, features, **settings)
        check_parts(at, expected, alpha)
        assert f"votes from 0 to {k}" in html(at)
        scores = all_by_hand(folder, **settings)
        t = threshold(scores["test"])
        # not of unit length, scores are large: as float32 keeps seven digits, so many agree
        assert float(sums(at)["threshold"]) == pytest.approx(t, rel=2e-5, abs=SHOWN)
        assert ("Called OOD" in verdict(at)) == (expected.total > t)
        for shown, (name, of_set) in zip(places(at).items(), scores.items(), strict=True):
            assert shown[0].startswith(f"{name} (")
            assert shown[1] == f"{100 * (of_set < expected.total - 1e-6).mean():.1f} %", (shown, settings)
        cells = grids(at, component_data)["near_id"]
        assert [c["id"] for c in cells] == ids[expected.id_rows].tolist()
        assert (link(at, "k"), link(at, "alpha"), link(at, "unit")) == (
            "" if k == 10 else str(k), "" if alpha == 0.01 else f"{alpha:g}", "" if normalize else "0"
        )  # fmt: skip

    # 1. alpha alone
    at.number_input(key="votes_alpha").set_value(0.3).run()
    check(10, 0.3, True)
    assert float(sums(at)["vote part"]) == pytest.approx(0.3 * row["votes"], abs=SHOWN)
    # 2. k as well, from one end to the other
    for k in (3, 1, 50):
        at.slider(key="votes_k").set_value(k).run()
        check(k, 0.3, True)
    # 3. features as they are
    at.toggle(key="votes_unit").set_value(False).run()
    check(50, 0.3, False)
    # 4. and back: the table's row again
    at.button(key="votes_own").click().run()
    check(10, 0.01, True)
    assert sums(at)["score, Eq. 6"] == f"{row['total']:.4f}"
    assert at.button(key="votes_own").disabled
    # 5. the same by link, and a threshold set by hand, exactly at the score: that is called ID
    at = open_page(VOTES, {"sample": row["id"], "alpha": "0.3", "k": "3"})
    check(3, 0.3, True)
    at = open_page(VOTES, {"sample": row["id"], "t": repr(float(row["total"]))})
    assert "Passes as ID" in verdict(at) and "that was set by hand" in texts(at)
    assert f"is at the threshold of **{row['total']:.4f}**" in texts(at)
    at.query_params["t"] = repr(float(np.nextafter(row["total"], 0)))
    at.run()
    assert "Called OOD" in verdict(at)


# --- choosing an image ----------------------------------------------------------------------------


def test_choosing_by_set_order_id_and_step(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle(blend=BLEND)
    table = table_of(folder)
    t = threshold(table.query("role == 'id'")["total"].to_numpy())
    # 1. none chosen: the near-OOD image that is missed by least
    at = open_page(VOTES)
    near = table[(table["set"] == "shapes-novel") & (table["total"] <= t)]
    first = near.loc[near["total"].idxmax()]
    assert sums(at)["score, Eq. 6"] == f"{first['total']:.4f}"
    what = "the missed OOD image of `shapes-novel` closest to the threshold"
    assert f"No image chosen yet: this is {what}. Pick" in texts(at) and "a **miss**" in verdict(at)
    # at a threshold set by hand it is another one, or one just above
    by_hand = float(table[table["set"] == "shapes-novel"]["total"].quantile(0.3))
    moved = open_page(VOTES, {"t": repr(by_hand)})
    missed = table[(table["set"] == "shapes-novel") & (table["total"] <= by_hand)]
    assert sums(moved)["score, Eq. 6"] == f"{missed['total'].max():.4f}" != f"{first['total']:.4f}"
    assert what in texts(moved) and "a **miss**" in verdict(moved)
    moved = open_page(VOTES, {"t": "0"})
    assert what.replace("missed ", "") in texts(moved) and "rightly: it is OOD" in verdict(moved)
    assert at.selectbox(key="votes_group").options == [
        "test (ID)",
        "shapes-novel (near-OOD)",
        "shapes-empty (far-OOD)",
        "digits (far-OOD)",
        "shapes-novel-val (validation)",
        "train (ID bank)",
        "SD outliers (bank)",
    ]

    def check_strip(rows: pd.DataFrame, at_row: int) -> None:
        cells = grids(at, component_data)["strip"]
        begin = max(0, min(at_row - 6, len(rows) - 13))
        part = rows.iloc[begin : begin + 13]
        assert [c["id"] for c in cells] == part["id"].tolist()
        assert [c["text"] for c in cells] == [f"{s:.3f}" for s in part["total"]]
        assert [c["id"] for c in cells if c["chosen"]] == [rows["id"].iloc[at_row]]
        assert f"Image {at_row + 1} of {len(rows)} of " in texts(at)
        assert link(at, "sample") == rows["id"].iloc[at_row]
        assert sums(at)["score, Eq. 6"] == f"{rows['total'].iloc[at_row]:.4f}"

    # 2. another set, worst first: OOD images with the lowest scores, ID images with the highest
    for name in ("digits", "test"):
        at.selectbox(key="votes_group").select(name).run()
        assert not at.exception
        here = table[table["set"] == name].sort_values("total", ascending=name != "test", kind="stable")
        check_strip(here, 0)
        assert link(at, "set") == name
    # 3. the next ones and back
    assert at.button(key="votes_previous").disabled
    for button, row in (("next", 1), ("next", 2), ("previous", 1)):
        at.button(key=f"votes_{button}").click().run()
        check_strip(here, row)
    # 4. nearest to the threshold first: the image stays, its place in the order is another
    at.selectbox(key="votes_order").select("nearest to the threshold").run()
    chosen = here["id"].iloc[1]
    here = here.iloc[np.argsort(np.abs(here["total"] - t), kind="stable")]
    check_strip(here, int(np.flatnonzero(here["id"] == chosen)[0]))
    at = open_page(VOTES, {"sample": here["id"].iloc[-1], "votes_order": "nearest to the threshold"})
    assert at.button(key="votes_next").disabled
    check_strip(here, 39)
    # 5. a bank: in a random order that stays, without scores under the pictures
    at.selectbox(key="votes_group").select("train").run()
    ids, _ = bank_ids(folder)
    cells = grids(at, component_data)["strip"]
    assert len({c["id"] for c in cells} & set(ids)) == 13
    assert {c["text"] for c in cells} == {""} and at.selectbox(key="votes_order").disabled
    # 6. an id that is typed, whole or in part
    one = table[table["set"] == "digits"]["id"].iloc[4]
    score = table.set_index("id").loc[one, "total"]
    for text in (f"  {one} ", one[3:]):
        at.text_input(key="votes_id").set_value(text).run()
        assert not at.exception
        assert link(at, "sample") == text.strip() and at.selectbox(key="votes_group").value == "digits"
        assert at.text_input(key="votes_id").value == one
        assert sums(at)["score, Eq. 6"] == f"{score:.4f}"
    assert f"`{one[3:]}` is part of one id only, this one's." in texts(at)


def test_unknown_ids_give_one_clear_line(full_bundle: Full, open_page: Open) -> None:
    folder = full_bundle(blend=BLEND)
    table = table_of(folder)
    usual = None
    for asked, line in (
        ("no/such/1", "`no/such/1` is no image of this bundle, nor of a set on this machine."),
        ("cifar10/test/3", "`cifar10/test/3` is no image of this bundle, nor of a set on this machine."),
        ("shapes/test/", "shapes/test/"),
        ("upload/3f", "`upload/3f` was an upload in another browser session. Upload it again to see it."),
        ("**x** <b>`", "`**x** <b>'` is no image of this bundle, nor of a set on this machine."),
        ("x" * 500, f"`{'x' * 60}` is no image of this bundle, nor of a set on this machine."),
    ):
        at = open_page(VOTES, {"sample": asked})
        lines = [one.value for one in at.main.warning]
        assert len(lines) == 1, asked
        if asked == "shapes/test/":
            ids = {*table["id"], *np.concatenate(bank_ids(folder))}
            n = sum(asked in one for one in ids)
            assert lines[0].startswith(f"{n} ids contain `shapes/test/`, such as `shapes/test/")
        else:
            assert lines[0].startswith(line)
        # whose verdict it is that follows
        assert lines[0].endswith(f"**What follows is another image**, `{at.text_input(key='votes_id').value}`.")
        # the page stands, with the image that it begins with
        usual = usual or sums(at)
        assert sums(at) == usual
        assert not at.error and "Traceback" not in texts(at)
    # settings that make no sense in a link
    at = open_page(VOTES, {"k": "-7", "alpha": "nan", "unit": "x", "t": "inf", "set": "u", "votes_order": "v"})
    until_searched(at)
    assert at.slider(key="votes_k").value == 10 and at.number_input(key="votes_alpha").value == 0.01
    assert at.selectbox(key="votes_order").value == "worst first"


def test_an_image_of_a_set_that_the_bundle_does_not_know(
    full_bundle: Full, open_page: Open, component_data: Read
) -> None:
    """Its features are computed here."""
    folder = full_bundle(blend=BLEND, sets=("digits",))
    novel = data.load("shapes-novel", "test", limit=2)
    at = open_page(VOTES, {"sample": novel.ids[1]})
    features = Bundle.load(folder, "cpu").features(novel.images[1:])[0]
    check_parts(at, by_hand(folder, features), 0.01)
    assert "None of the bundle's own: its features are computed here" in texts(at)
    assert np.array_equal(picture(grids(at, component_data)["picture"][0]), novel.images[1])
    where = "An image of shapes-novel/test, which is none of this bundle's sets."
    assert where in texts(at) and "shapes-novel/test, no set of this bundle" in texts(at)
    assert "your own" not in texts(at)
    box = at.selectbox(key="votes_group")
    assert box.options[-1] == "shapes-novel/test" and box.value == ""
    # neither ID nor OOD is known of it
    assert "·" not in verdict(at)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_an_upload_is_scored(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    folder = full_bundle(blend=BLEND)
    image = data.load("shapes-novel", "test", limit=1).images[0]
    # the middle square of a picture that is wider than high
    wide = np.pad(image, ((0, 0), (5, 5), (0, 0)))
    at = open_page(VOTES)
    at.file_uploader[0].set_value(
        [
            ("mine.png", png(wide), "image/png"),
            ("cut.png", png(image)[:60], "image/png"),
        ]
    ).run()
    assert not at.exception
    assert [one.value.split(" ")[0] for one in at.error] == ["cut.png"]
    assert re.fullmatch(r"upload/[0-9a-f]+", link(at, "sample"))
    assert np.array_equal(picture(grids(at, component_data)["picture"][0]), image)
    features = Bundle.load(folder, "cpu").features(image[None])[0]
    expected = by_hand(folder, features)
    check_parts(at, expected, 0.01)
    t = threshold(table_of(folder).query("role == 'id'")["total"].to_numpy())
    assert verdict(at) == ("### :red[Called OOD]" if expected.total > t else "### :blue[Passes as ID]")
    assert at.selectbox(key="votes_group").value == "" and "an image of your own" in texts(at)
    # other settings hold for it, too
    at.slider(key="votes_k").set_value(4).run()
    check_parts(at, by_hand(folder, features, k=4), 0.01)
    # and it is there after a visit to another page
    at.switch_page("pages/6_Results.py").run()
    at.switch_page(VOTES).run()
    assert np.array_equal(picture(grids(at, component_data)["picture"][0]), image)
    check_parts(at, by_hand(folder, features, k=4), 0.01)


# --- an outlier of it -----------------------------------------------------------------------------


def curve(at: AppTest) -> dict[str, tuple[list[float], np.ndarray]]:
    """The lines of the chart of scores along S, by name."""
    spec = json.loads(at.get("plotly_chart")[-1].proto.spec)
    found = {}
    for one in spec["data"]:
        y = one["y"]
        numbers = np.frombuffer(base64.b64decode(y["bdata"]), np.dtype(y["dtype"])) if "bdata" in y else y
        x = one["x"]
        x = np.frombuffer(base64.b64decode(x["bdata"]), np.dtype(x["dtype"])) if "bdata" in x else x
        found[one["name"]] = ([float(v) for v in x], np.asarray(numbers, float))
    return found


@pytest.mark.parametrize(("where", "n_values"), [("digits", 9), ("train", 3)])
def test_its_score_along_s(
    full_bundle: Full,
    open_page: Open,
    component_data: Read,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    n_values: int,
) -> None:
    monkeypatch.setattr("sdviz.ui.sample_votes.outlier.N_VALUES", n_values)
    folder = full_bundle()
    bundle = Bundle.load(folder, "cpu")
    names = list(bundle.manifest.class_names)
    banks, (ids, outlier_ids) = load_file(folder / "features.safetensors"), bank_ids(folder)
    made = pd.read_parquet(folder / "outliers.parquet")
    if where == "train":
        # an image whose own outlier in the bank would have a vote on it
        known = ready(banks["id_features"], True)
        own = np.array(
            [int(np.flatnonzero(outlier_ids == o)[0]) for o in made.set_index("source_id")["id"][ids]]
        )
        to_own = np.linalg.norm(known - ready(banks["outlier_features"], True)[own], axis=1)
        among = np.linalg.norm(known[:, None] - known[None], axis=2)
        i = int((to_own - np.sort(among, axis=1)[:, 9]).argmin())
        one, label = str(ids[i]), int(banks["id_labels"][i])
        without = (one, str(outlier_ids[own[i]]))
        bare = by_hand(folder, banks["id_features"][i], without=(one,))
        assert by_hand(folder, banks["id_features"][i], without=without).votes < bare.votes
    else:
        one, without = str(table_of(folder).query("set == 'digits'")["id"].iloc[3]), ()
        label = -1
    source, split, _ = one.split("/")
    images = data.load(source, split)
    image = images.images[images.ids == one]
    if label < 0:
        label = int(bundle.pseudo_label(image)[0][0])
    at = open_page(VOTES, {"sample": one, "votes_make": "true"})
    at.selectbox(key="votes_told").select(names[(label + 3) % 10]).run()
    at.slider(key="votes_S").set_value(160).run()
    assert not at.exception
    assert f"It is taken for {names[label]}" in texts(at)
    lines = curve(at)
    told = (label + 3) % 10
    wrong, control = f"told {names[told]} (wrong)", f"told {names[label]} (control)"
    assert set(lines) >= {wrong, control}
    values = lines[wrong][0]
    assert values == lines[control][0] == sorted({0.0, 160.0, *np.linspace(0, 400, n_values).tolist()})
    assert np.isfinite(lines[wrong][1]).all() and np.isfinite(lines[control][1]).all()

    def score(pictures: np.ndarray) -> float:
        return by_hand(folder, bundle.features(pictures)[0], without=without).total

    # at S = 0 it is the image, under either label; that is the score on the page where nothing is left out
    start = score(image)
    assert lines[wrong][1][0] == lines[control][1][0] == pytest.approx(start, abs=SHOWN)
    if where == "digits":
        assert float(sums(at)["score, Eq. 6"]) == pytest.approx(start, rel=2e-3)
    # elsewhere, what the bundle makes of it
    d = bundle.manifest.defaults
    for s in (160, 400):
        for name, target in ((wrong, told), (control, label)):
            batch = bundle.generate(
                image, labels=np.array([label]), target_labels=np.array([target]), ids=np.array([one]),
                start_timestep=s, guidance_scale=d.guidance_scale,
            )  # fmt: skip
            shown = lines[name][1][values.index(s)]
            assert shown == pytest.approx(score(batch.outliers), rel=5e-3), (s, name)
    assert lines[wrong][1][-1] != lines[control][1][-1]
    # the pictures, each with its score and what that means
    t = threshold(table_of(folder).query("role == 'id'")["total"].to_numpy())
    cells = grids(at, component_data)["along"]
    assert [c["id"] for c in cells] == [f"{v:.0f}" for v in values]
    assert [c["text"] for c in cells] == [f"{v:.3f}" for v in lines[wrong][1]]
    assert [c["small"] for c in cells] == ["called OOD" if v > t else "passes as ID" for v in lines[wrong][1]]
    assert [c["id"] for c in cells if c["chosen"]] == ["160"]
    assert np.array_equal(picture(cells[0]), image[0])


# --- bundles that lack parts ----------------------------------------------------------------------


def test_without_a_bundle(open_page: Open) -> None:
    at = open_page(VOTES, {"sample": "shapes/test/000001"})
    assert "There is no trained network on this machine yet" in texts(at)
    assert "the score that they make" in texts(at)
    assert "python -m sdviz run" in at.code[0].value


def test_without_a_detector(full_bundle: Full, shipped: Full, open_page: Open) -> None:
    folder = full_bundle(detector=False)
    at = open_page(VOTES, {"sample": "shapes/test/000001"})
    assert "This bundle has no detector, so it scores no image" in texts(at)
    assert at.code[0].value and not at.get("bidi_component") and not sums(at)
    assert folder.exists()
    # one with a U-Net alone
    shipped("alone", clusterer=False)
    at = open_page(VOTES, {"bundle": "alone"})
    assert "This bundle has no detector, so it scores no image" in texts(at)


def without(folder: Path, *parts: str, clusterer: bool = True) -> None:
    """Takes tables, or the clusterer, out of a saved bundle."""
    whole = Bundle.load(folder, "cpu")
    kept = folder.parent.parent / "kept"
    kept.mkdir()
    tables = {name: Path(shutil.copy(path, kept)) for name, path in whole.parts.items() if name not in parts}
    manifest = whole.manifest if clusterer else whole.manifest.model_copy(update={"clusterer": None})
    networks = (whole.noise_predictor, whole.schedule, whole.clusterer if clusterer else None)
    Bundle(manifest, *networks, whole.encoder, whole.detector, tables).save(folder)


def test_without_a_clusterer(full_bundle: Full, open_page: Open) -> None:
    folder = full_bundle()
    without(folder, clusterer=False)
    row = table_of(folder).query("set == 'digits'").iloc[2]
    at = open_page(VOTES, {"sample": row["id"], "votes_make": "true"})
    assert sums(at)["score, Eq. 6"] == f"{row['total']:.4f}"
    g_in = load_file(folder / "ood_features.safetensors")["digits.g_in"][2]
    name = json.loads((folder / "bundle.json").read_text())["class_names"][int(g_in.argmax())]
    assert f"It is taken for {name} by the head g_in: this bundle has no clusterer." in texts(at)
    assert all(np.isfinite(y).all() for _, y in curve(at).values())


def test_without_banks_or_scores(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    # 1. the table alone: the score, no neighbours
    folder = full_bundle(blend=BLEND)
    without(folder, "features.safetensors", "features.parquet", "snapshots.parquet", "snapshots.safetensors")
    row = table_of(folder).query("set == 'digits'").iloc[2]
    at = open_page(VOTES, {"sample": row["id"]})
    assert sums(at)["score, Eq. 6"] == f"{row['total']:.4f}"
    assert "This bundle has no banks of features, so it knows no neighbours." in texts(at)
    assert "Without banks of features there is no map." in texts(at)
    assert "near_id" not in grids(at, component_data)


@pytest.mark.parametrize(
    ("sets", "n"),
    [(("digits",), 40), (("shapes-novel", "digits"), 1), ((), 40)],
    ids=["one set", "one image", "no OOD"],
)
def test_few_sets_and_few_images(full_bundle: Full, open_page: Open, sets: tuple[str, ...], n: int) -> None:
    folder = full_bundle(sets=sets, n_per_set=n)
    table = table_of(folder)
    t = threshold(table.query("role == 'id'")["total"].to_numpy())
    at = open_page(VOTES)
    for name in ("test", *sets):
        row = table[table["set"] == name].iloc[-1]
        at.query_params["sample"] = row["id"]
        at.run()
        assert not at.exception
        assert sums(at)["score, Eq. 6"] == f"{row['total']:.4f}"
        assert sums(at)["threshold"] == f"{t:.4f}"
        assert list(places(at).values()) == [
            f"{100 * (part['total'] < row['total']).mean():.1f} %"
            for _, part in table.groupby("set", sort=False)
        ]
        assert at.button(key="votes_next").disabled == (n == 1 or f"Image {n} of" in texts(at))
    at.slider(key="votes_k").set_value(2).run()
    until_searched(at)
    expected = by_hand(folder, features_of(folder, row["set"])[row["row"]], k=2)
    check_parts(at, expected, 0.01)


def test_images_that_are_not_on_this_machine(full_bundle: Full, open_page: Open, component_data: Read) -> None:
    """Score and neighbours are unchanged; the picture is named, and a line says why."""
    folder = full_bundle(sets=("digits", "shapes-empty"), blend=BLEND)
    change_table(
        folder, "scores.parquet", lambda t: t.assign(id=t["id"].str.replace("digits/test/", "cifar10/test/"))
    )
    row = table_of(folder).query("set == 'digits'").iloc[2]
    at = open_page(VOTES, {"sample": row["id"], "votes_make": "true"})
    assert sums(at)["score, Eq. 6"] == f"{row['total']:.4f}"
    assert grids(at, component_data)["picture"][0]["src"] == ""
    assert "Named without a picture: cifar10 (test) is not on this machine." in texts(at)
    assert "That needs its picture, which is not on this machine." in texts(at)
    assert len(grids(at, component_data)["near_id"]) == 10


def test_names_that_people_gave_are_shown_letter_by_letter(full_bundle: Full, open_page: Open) -> None:
    folder = full_bundle()
    bundle = Bundle.load(folder, "cpu")
    odd = "Kreuz <b>bold</b> **md** $x$"
    for cluster in range(bundle.n_clusters):
        rename(names_file(), bundle.hash, cluster, f"{odd} {cluster}", bundle.class_names)
    at = open_page(VOTES, {"votes_make": "true"})
    until_searched(at)
    shown = [one.value for one in (*at.markdown, *at.caption) if "Kreuz" in one.value]
    assert len(shown) >= 3
    escaped = r"Kreuz \<b\>bold\</b\> \*\*md\*\* \$x\$"
    assert all(one.count("Kreuz") == one.count(escaped) for one in shown)
    spec = next(one.proto.spec for one in at.get("plotly_chart") if "Kreuz" in one.proto.spec)
    names = [one["name"] for one in json.loads(spec)["data"]]
    assert all(one.startswith("told Kreuz &lt;b&gt;bold&lt;/b&gt; **md** $x$") for one in names)
