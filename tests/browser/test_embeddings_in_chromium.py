from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Polygon
from playwright.sync_api import Page

from sdviz.analysis import Evidence
from sdviz.analysis.points import Points, final_points, snapshot_points
from sdviz.bundle import Bundle
from sdviz.projection import LayoutSettings, compute_layouts

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
SCATTER = ".scatter[data-frame]"
AFTER = "/Embeddings?embeddings_view=After+training&embeddings_method=PCA"
SETS = ("train", "test", "shapes-novel", "shapes-empty", "digits", "SD outliers")


@pytest.fixture(scope="module")
def evidence(full_server: str, full_folder: Path) -> Evidence:
    return Evidence(Bundle.load(full_folder / "checkpoints" / "full", "cpu", lazy=True))


def pca(points: Points, dims: int = 2) -> np.ndarray:
    return compute_layouts(points.features, LayoutSettings("pca", dims)).points


def wait(page: Page) -> None:
    page.wait_for_timeout(250)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def on_screen(page: Page, points: np.ndarray, panel: int = 0) -> np.ndarray:
    """Where points (N,d) of a layout are in the window, px, by the view that the scatter says it has."""
    scatter = page.locator(".scatter")
    view = json.loads(scatter.get_attribute("data-view") or "")
    d = points.shape[1]
    turned = (points - np.array(view["pivot"])[:d]) @ np.array(view["turn"]).reshape(3, 3)[:, :d].T
    box = page.locator(".stage").bounding_box()
    assert box is not None
    left = box["x"] + 1 + (panel + 0.5) * view["width"] / view["panels"]
    x = left + (turned[:, 0] - view["x"]) * view["unit"]
    y = box["y"] + 1 + view["height"] / 2 - (turned[:, 1] - view["y"]) * view["unit"]
    return np.stack([x, y], 1)


def draw(page: Page, corners: np.ndarray) -> None:
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner)
    page.mouse.up()
    wait(page)


def exported(page: Page) -> pd.DataFrame:
    with page.expect_download() as file:
        page.locator(".st-key-embeddings_chosen_csv button").click()
    text = Path(file.value.path()).read_text(encoding="utf-8")
    assert text.startswith("\ufeff# bundle: full\n# bundle hash: ")
    return pd.read_csv(io.StringIO(text), comment="#")


def ids_in(points: Points, places: np.ndarray, corners: np.ndarray) -> set[str]:
    """By matplotlib's test of a polygon, without what lies on its edge to a hundredth of a pixel."""
    return set(points.ids[Polygon(np.vstack([corners, corners[:1]])).contains_points(places)].tolist())


@pytest.mark.parametrize("dims", [2, 3])
def test_a_lasso_selects_the_images_inside_and_exports_them(
    full_page: Open, evidence: Evidence, dims: int
) -> None:
    page = full_page(f"{AFTER}&embeddings_dims={dims}-D", wait_for=SCATTER)
    wait(page)
    points = final_points(evidence, SETS, 2_000, True)
    if dims == 3:
        # turned by hand first
        page.mouse.move(700, 500)
        page.mouse.down()
        page.mouse.move(760, 530, steps=4)
        page.mouse.up()
        page.wait_for_timeout(200)
    page.get_by_role("button", name="Lasso").click()
    places = on_screen(page, pca(points, dims)[0])
    middle = np.median(places, 0)
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    corners = np.round(middle + 90 * np.stack([np.cos(turn), 0.7 * np.sin(turn)], 1))
    want = ids_in(points, places, corners)
    assert 5 < len(want) < len(points) - 5
    draw(page, corners)
    assert page.locator(".scatter").get_attribute("data-chosen") == str(len(want))
    table = exported(page)
    assert set(table["id"]) == want and len(table) == len(want)
    # the gallery shows the same: OOD first, then outliers, ID images last
    shown = page.locator(".st-key-embeddings_gallery img")
    assert shown.count() == min(48, len(want))
    places = table["set"].map({"SD outliers": 1, "test": 2, "train": 3}).fillna(0)
    first = table["id"][places.to_numpy().argsort(kind="stable")[0]]
    assert (shown.first.get_attribute("alt") or "").endswith(first)
    totals = {i: t for s in evidence.sets.values() for i, t in zip(s.ids, s.total, strict=True)}
    scored = table[table["score"].notna()]
    assert len(scored) and all(totals[i] == s for i, s in zip(scored["id"], scored["score"], strict=True))


def test_a_box_takes_what_is_not_hidden_and_clear_empties_it(full_page: Open, evidence: Evidence) -> None:
    page = full_page(AFTER, wait_for=SCATTER)
    wait(page)
    points = final_points(evidence, SETS, 2_000, True)
    page.get_by_title("Hide or show").filter(has_text="digits (far-OOD)").click()
    page.get_by_role("button", name="Box: drag").click()
    places = on_screen(page, pca(points)[0])
    low, high = np.round(places.min(0) - 3), np.round(places.max(0) + 3)
    draw(page, np.array([low, [high[0], low[1]], high]))
    assert page.locator(".scatter").get_attribute("data-chosen") == str((points.sets != "digits").sum())
    # they stay chosen in another layout
    page.get_by_text("Through training", exact=True).click()
    wait(page)
    page.get_by_text("After training", exact=True).click()
    wait(page)
    assert page.locator(".scatter").get_attribute("data-chosen") == str((points.sets != "digits").sum())
    page.get_by_role("button", name="Clear the selection").click()
    page.get_by_text("Nothing is selected.").wait_for()
    assert page.locator(".scatter").get_attribute("data-chosen") == "0"


def test_hover_shows_the_picture_and_a_click_leads_through_the_pages(
    full_page: Open, evidence: Evidence
) -> None:
    page = full_page(f"{AFTER}&embeddings_sets=digits&embeddings_sets=test", wait_for=SCATTER)
    wait(page)
    points = final_points(evidence, ("test", "digits"), 2_000, True)
    places = on_screen(page, pca(points)[0])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(len(places)) * 1e9
    alone = int(np.where(points.sets == "digits", gaps.min(1), 0).argmax())
    one = str(points.ids[alone])
    page.mouse.move(*places[alone])
    page.wait_for_selector(f".scatter[data-hover='{one}']")
    card = page.locator(".card.on")
    assert one in card.inner_text() and card.get_attribute("data-picture") == "there"
    inked = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    assert card.locator("canvas").evaluate(inked) > 8
    page.mouse.down()
    page.mouse.up()

    # Sample votes shows it, with its score from the table
    page.wait_for_url("**/Sample_votes*")
    page.wait_for_selector(".votes-sum")
    wait(page)
    assert f"sample={one.replace('/', '%2F')}" in page.url
    row = evidence.sets["digits"]
    total = row.total[row.ids.tolist().index(one)]
    assert f"{total:.4f}" in page.locator(".votes-sum").inner_text()
    assert page.get_by_role("textbox", name="Image id").input_value() == one

    # Failures keeps it
    page.get_by_role("link", name="Failures").click()
    page.wait_for_url("**/Failures*")
    wait(page)
    assert f"sample={one.replace('/', '%2F')}" in page.url
    page.get_by_text(one).first.wait_for()

    # and back in Embeddings it is ringed
    page.get_by_role("link", name="Embeddings").click()
    page.wait_for_selector(SCATTER)
    wait(page)
    assert f"sample={one.replace('/', '%2F')}" in page.url


def test_epochs_stand_side_by_side_or_follow_a_slider(full_page: Open, evidence: Evidence) -> None:
    page = full_page("/Embeddings?embeddings_method=PCA", wait_for=SCATTER)
    wait(page)
    scatter = page.locator(".scatter")
    assert scatter.get_attribute("data-frame") == "1 5"
    points = snapshot_points(evidence, SETS, 2_000, True)
    frames = pca(points)
    # the second panel shows the last epoch
    page.get_by_role("button", name="Lasso").click()
    places = on_screen(page, frames[5], panel=1)
    middle = np.median(places, 0)
    corners = np.round(middle + 60 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]))
    want = ids_in(points, places, corners)
    assert len(want) > 1
    draw(page, corners)
    assert set(exported(page)["id"]) == want
    page.get_by_text("One, with a slider", exact=True).click()
    wait(page)
    slider = page.get_by_label("Epoch of detector training")
    slider.fill("0")
    page.wait_for_selector(".scatter[data-frame='0']")
    assert page.locator(".names").inner_text().startswith("before training")
    slider.fill("3")
    page.wait_for_selector(".scatter[data-frame='3']")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1024, 1440])
def test_nothing_sticks_out_in_either_theme(
    full_page: Open,
    sticking_out: Callable[[Page], list[str]],
    is_dark: Callable[[Page], bool],
    dark: bool,
    width: int,
) -> None:
    page = full_page("/Embeddings?embeddings_method=PCA", dark, width, wait_for=SCATTER)
    wait(page)
    assert sticking_out(page) == []
    page.get_by_role("button", name="Box: drag").click()
    box = page.locator(".stage").bounding_box()
    assert box is not None
    x, y = box["x"], box["y"]
    draw(page, np.array([[x + 2, y + 2], [x + 300, y + 200], [x + box["width"] / 2 - 3, y + 480]]))
    page.get_by_text("Counts per set and cluster").wait_for()
    assert sticking_out(page) == []
    assert is_dark(page) == dark
