from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from PIL import Image

from sdviz.projection import Layouts
from sdviz.ui.embeddings.colours import colour_points
from sdviz.ui.embeddings.selection import (
    chosen_rows,
    chosen_zip,
    counts_html,
    counts_of,
    odd_ones_first,
    points_csv,
    take_region,
)
from sdviz.ui.embeddings.state import Known


def region(**other: object) -> dict[str, object]:
    whole = [[-99, -99], [99, -99], [99, 99], [-99, 99]]
    usual = {"polygon": whole, "onto": [[1, 0], [0, 1]], "frame": 0, "hidden": [], "layout": "this"}
    return usual | other


def test_a_region_selects_what_lies_in_it_and_is_not_hidden(known: Known, layouts: Layouts) -> None:
    shown = colour_points(known, "set")
    take_region(region(), known, layouts, "this", shown)
    assert len(chosen_rows(known)) == len(known.points) == 160
    # the right half, of the sets that are not hidden
    x = layouts.points[0, :, 0]
    take_region(
        region(polygon=[[0, -99], [99, -99], [99, 99], [0, 99]], hidden=[1]), known, layouts, "this", shown
    )
    assert chosen_rows(known).tolist() == np.flatnonzero((x > 0) & (known.points.sets != "test")).tolist()
    # turned by a quarter: the page's x is the layout's y
    half = [[0, -99], [99, -99], [99, 99], [0, 99]]
    take_region(region(polygon=half, onto=[[0, 1], [-1, 0]]), known, layouts, "this", shown)
    assert chosen_rows(known).tolist() == np.flatnonzero(layouts.points[0, :, 1] > 0).tolist()
    take_region(None, known, layouts, "this", shown)
    assert len(chosen_rows(known)) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"layout": "another"}, {"frame": 7}, {"onto": [[1, 0, 0], [0, 1, 0]]}, {"polygon": "x"}, {"hidden": None}],
)
def test_a_region_that_is_not_understood_changes_nothing(
    wrong: dict[str, object], known: Known, layouts: Layouts
) -> None:
    shown = colour_points(known, "set")
    take_region(region(), known, layouts, "this", shown)
    take_region(region(polygon=[[0, 0], [1, 0], [1, 1]]) | wrong, known, layouts, "this", shown)
    assert len(chosen_rows(known)) == 160
    st.session_state.clear()


def test_counts_are_per_set_and_cluster(known: Known) -> None:
    rows = np.arange(0, 160, 3)
    table = counts_of(known, rows)
    assert table.loc["all", "all"] == len(rows)
    for name in ("train", "test", "digits", "SD outliers"):
        here = rows[known.points.sets[rows] == name]
        assert table.loc["all", name] == len(here)
        for cluster in np.unique(known.points.clusters[here]):
            n = (known.points.clusters[here] == cluster).sum()
            assert table.loc[known.names[cluster], name] == n


def test_the_table_of_counts_has_a_line_for_each_set_below_the_total(known: Known) -> None:
    rows = np.arange(0, 160, 3)
    lines = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", counts_html(known, rows))
    cells = [[re.sub("<.*?>", "", one) for one in line] for line in lines]
    order = list(dict.fromkeys(known.points.sets.tolist()))
    assert [title for title, *_ in cells] == ["all selected", *map(known.title_of, order)]
    for name, (_, images, texts) in zip(["all", *order], cells, strict=True):
        here = rows if name == "all" else rows[known.points.sets[rows] == name]
        parts = texts.split()
        found = dict(zip(parts[::2], map(int, parts[1::2]), strict=True))
        clusters, n = np.unique(known.points.clusters[here], return_counts=True)
        assert found == {known.names[c]: m for c, m in zip(clusters, n, strict=True)}
        assert list(found.values()) == sorted(found.values(), reverse=True) and int(images) == len(here)


def test_names_of_clusters_are_no_html_in_the_counts(known: Known) -> None:
    renamed = replace(known)
    renamed.__dict__["names"] = ("<b>Kreuz</b>", *known.names[1:])
    text = counts_html(renamed, np.arange(len(known.points)))
    assert "&lt;b&gt;Kreuz&lt;/b&gt;" in text and "<b>Kreuz" not in text


def test_the_export_has_every_selected_image(known: Known, layouts: Layouts) -> None:
    rows = np.flatnonzero(known.points.sets != "SD outliers")[::7]
    text = points_csv(known, layouts, rows, {"bundle hash": known.bundle.hash})
    assert text.startswith(f"\ufeff# bundle hash: {known.bundle.hash}\n")
    table = pd.read_csv(io.StringIO(text), comment="#")
    assert table["id"].tolist() == known.points.ids[rows].tolist()
    assert np.allclose(table[["x after training", "y after training"]], layouts.points[0, rows])
    totals = {one: t for s in known.evidence.sets.values() for one, t in zip(s.ids, s.total, strict=True)}
    scored = table[table["score"].notna()]
    assert len(scored) and all(totals[i] == s for i, s in zip(scored["id"], scored["score"], strict=True))
    with zipfile.ZipFile(io.BytesIO(chosen_zip(known, layouts, rows, {}))) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert len(names) == len(rows)
        first = np.asarray(Image.open(io.BytesIO(archive.read(names[0]))))
    assert np.array_equal(first, known.library.show(known.points.ids[rows[:1]]).images[0])


def test_the_gallery_begins_with_what_is_odd(known: Known) -> None:
    rows = np.arange(0, 160, 7)
    there = odd_ones_first(known, rows)
    assert sorted(there.tolist()) == rows.tolist()
    assert list(dict.fromkeys(known.points.sets[there].tolist())) == ["digits", "SD outliers", "test", "train"]
