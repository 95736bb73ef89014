from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, TimeoutError

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
OVERVIEW = ".st-key-pseudo_labels_overview button.cell"
FOUND = ".st-key-pseudo_labels_found img"


@pytest.fixture
def bundle(full_server: str, full_folder: Path) -> Path:
    """The bundle that the server shows."""
    return full_folder / "checkpoints" / "full"


def class_names(bundle: Path) -> list[str]:
    found: list[str] = json.loads((bundle / "bundle.json").read_text())["class_names"]
    return found


def choose(page: Page, cluster: str) -> None:
    """Takes a cluster from the list; opens the list again if a late answer has closed it."""
    option = page.get_by_role("option", name=cluster, exact=True)
    for _ in range(5):
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        page.locator(".st-key-pseudo_labels_cluster input").click()
        try:
            option.click(timeout=3_000)
            return
        except TimeoutError:
            page.keyboard.press("Escape")
    raise AssertionError(f"the list of clusters does not stay open, or has no {cluster}")


def test_a_click_tells_of_a_picture_and_a_cluster_is_chosen(full_page: Open, bundle: Path) -> None:
    names, table = class_names(bundle), pd.read_parquet(bundle / "pseudo_labels.parquet")
    page = full_page("/Pseudo_labels", wait_for=OVERVIEW)
    # 1. a picture, by the mouse and by the keyboard
    cell = page.locator(OVERVIEW).nth(8 * 3 + 5)
    one = cell.get_attribute("data-id")
    assert one in set(table["id"][table["label"] == 3])
    cell.click()
    page.locator(f"{FOUND}[alt='{one}']").wait_for()
    page.get_by_text(f"{one}: cluster {names[3]}").wait_for()
    page.locator(f"{OVERVIEW}.chosen[data-id='{one}']").wait_for()
    page.wait_for_url(lambda url: f"sample={one}".replace("/", "%2F") in url)
    cell = page.locator(OVERVIEW).nth(8 * 6)
    other = cell.get_attribute("data-id")
    cell.focus()
    cell.press("Enter")
    page.locator(f"{FOUND}[alt='{other}']").wait_for()

    # 2. a cluster, with its own pictures alone
    choose(page, names[4])
    own = set(table["id"][table["label"] == 4])
    cells = page.locator(".st-key-pseudo_labels_sure button.cell, .st-key-pseudo_labels_unsure button.cell")
    shown: list[str] = []
    for _ in range(100):  # the surest are there before the least sure
        shown = cells.evaluate_all("all => all.map(e => e.dataset.id)")
        if set(shown) == own:
            break
        page.wait_for_timeout(100)
    assert set(shown) == own
    page.wait_for_url("**cluster=4*")
    # the link brings the same to somebody else; the sample goes on to another page
    again = full_page(page.url.removeprefix(page.url.split("/Pseudo_labels")[0]), wait_for=FOUND)
    again.locator(f".st-key-pseudo_labels_sure button.cell[data-id='{shown[0]}']").wait_for()
    again.locator(f"{FOUND}[alt='{other}']").wait_for()
    again.get_by_role("button", name="Open in Sample votes").click()
    again.wait_for_url("**/Sample_votes*")
    again.locator(f"img[alt*='{other}']").first.wait_for()

    # 3. an id that is typed
    field = page.locator(".st-key-pseudo_labels_find input")
    field.fill(table["id"][9])
    field.press("Enter")
    page.locator(f"{FOUND}[alt='{table['id'][9]}']").wait_for()
    page.get_by_role("button", name="Close").click()
    page.locator(FOUND).wait_for(state="detached")


def test_a_name_is_kept_after_a_reload_and_leaves_the_bundle_alone(
    full_page: Open, bundle: Path, full_folder: Path
) -> None:
    names = class_names(bundle)
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.rglob("*") if p.is_file()}
    page = full_page("/Pseudo_labels?cluster=7", wait_for=".st-key-pseudo_labels_sure img")
    page.get_by_role("button", name="Rename").click()
    field = page.locator(".st-key-pseudo_labels_name input")
    assert field.input_value() == names[7]
    field.fill("hoop <b>&")
    field.press("Enter")
    chosen = page.locator(".st-key-pseudo_labels_cluster input")
    page.wait_for_function(
        "document.querySelector('.st-key-pseudo_labels_cluster').querySelector('input').value === 'hoop <b>&'"
    )
    page.reload()
    page.locator(".st-key-pseudo_labels_sure img").first.wait_for()
    assert chosen.input_value() == "hoop <b>&"
    page.get_by_role("link", name="Failures").click()
    page.locator("h1", has_text="Failures").wait_for()
    page.get_by_role("link", name="Pseudo-labels").click()
    page.locator(".st-key-pseudo_labels_sure img").first.wait_for()
    assert chosen.input_value() == "hoop <b>&"
    after = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in bundle.rglob("*") if p.is_file()}
    assert before == after
    (kept,) = json.loads((full_folder / "runs" / "cluster_names.json").read_text()).values()
    assert kept == {"7": "hoop <b>&"}
    # and back, for the tests after this one
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("button", name="The bundle's own name").click()
    page.wait_for_function(
        f"document.querySelector('.st-key-pseudo_labels_cluster').querySelector('input').value === '{names[7]}'"
    )


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1024, True)])
def test_nothing_sticks_out(
    full_page: Open,
    bundle: Path,
    sticking_out: Callable[[Page], list[str]],
    is_dark: Callable[[Page], bool],
    width: int,
    dark: bool,
) -> None:
    names = class_names(bundle)
    page = full_page("/Pseudo_labels?sample=digits/test/00003", dark, width, wait_for=OVERVIEW)
    page.locator(f"{FOUND}").wait_for()
    page.locator(".stVegaLiteChart .mark-rect path, .stVegaLiteChart canvas").first.wait_for()
    assert is_dark(page) == dark
    assert sticking_out(page) == []
    for place in (OVERVIEW, ".st-key-pseudo_labels_found .cell"):
        style = page.locator(f"{place} img").first.evaluate(
            "e => [getComputedStyle(e).imageRendering, e.clientWidth, e.naturalWidth]"
        )
        assert style == ["pixelated", 96, 32]
    # the truth comes with its switch, not before
    assert page.locator("[data-testid=stMetric]").count() == 0
    page.locator(".st-key-pseudo_labels_truth label").click()
    page.locator("[data-testid=stMetric]", has_text="NMI").wait_for()
    page.locator(".js-plotly-plot .heatmaplayer image").first.wait_for()
    assert sticking_out(page) == []
    choose(page, names[2])
    page.locator(".st-key-pseudo_labels_unsure img").first.wait_for()
    page.get_by_text(f"is {names[2]}").first.wait_for()
    assert sticking_out(page) == []
    page.get_by_role("button", name="Rename").click()
    page.locator(".st-key-pseudo_labels_name input").wait_for()
    assert sticking_out(page) == []
    assert "Traceback" not in page.content()
