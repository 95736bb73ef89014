from __future__ import annotations

import base64
import io
import json
import math
import re
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
from sdviz.bundle import Bundle

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


def all_by_hand(folder: Path, **settings: Any) -> dict[str, np.ndarray]:  # noqa: ANN401
    """The scores of every set under other settings."""
    return {
        str(name): np.array([by_hand(folder, one, **settings).total for one in features_of(folder, str(name))])
        for name in table_of(folder)["set"].unique()
    }


def threshold(known: np.ndarray) -> float:
    """The smallest ID score at which 95 % of ID images lie at or below it."""
    return float(np.sort(known)[math.ceil(round(0.95 * len(known), 6)) - 1])


# --- what the page says ---------------------------------------------------------------------------


def words(at: AppTest) -> str:
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
    """How much of each set the image is more OOD than, by title."""
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
    """Another k or normalisation is searched for behind the page; its threshold is there after that."""
    for _ in range(100):
        if sums(at)["threshold"] != "...":
            return at
        time.sleep(0.1)
        at.run()
    raise AssertionError("the search does not end")


def check_parts(at: AppTest, expected: ByHand, alpha: float) -> None:
    """That the sum on the page is the one by hand."""
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
        assert f"score of **{row['total']:.4f}** is {side} the threshold of **{t:.4f}** that 95 %" in words(at)
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
        assert titles[row["set"]] in words(at)
        if row["label"] >= 0:
            assert f"class: {images.class_names[row['label']]}" in words(at)
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
    assert f"the d² add up to {row['distance']:.4f}" in words(at)
    images = data.load("shapes", "train")
    (i,) = np.flatnonzero(images.ids == cells[0]["id"])
    assert np.array_equal(picture(cells[0]), images.images[i])

    # 2. the votes, each with what was made of which
    cells, sources = found["near_mixed"][:10], found["near_mixed"][10:]
    assert f"{row['votes']} votes among the 10 nearest of ID images and outliers together" in words(at)
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
        assert line in words(at), line
