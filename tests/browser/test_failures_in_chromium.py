from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
GRID = ".st-key-failures_grid button.cell"


@pytest.fixture
def table(full_server: str, full_folder: Path) -> pd.DataFrame:
    """scores.parquet of the bundle that the server shows."""
    return pd.read_parquet(full_folder / "checkpoints" / "full" / "scores.parquet")


def missed(table: pd.DataFrame, t: float) -> list[str]:
    """OOD images at or below the threshold, the lowest score first."""
    found = table[(table["role"] != "id") & (table["total"] <= t)]
    order = np.argsort(found["total"].to_numpy() - t, kind="stable")
    return found["id"].iloc[order].tolist()


def some_missed(table: pd.DataFrame) -> float:
    """A threshold that lets a fifth of the OOD images through."""
    return float(np.quantile(table["total"][table["role"] != "id"], 0.2))


def wait_for_chosen(page: Page, one: str) -> None:
    page.locator(f"{GRID}.chosen[data-id='{one}']").wait_for()


def only_note(page: Page) -> Locator:
    """The field for a note, after that of the previous image has gone."""
    field = page.locator("textarea")
    page.wait_for_function("document.querySelectorAll('textarea').length === 1")
    return field


def test_keys_and_clicks_go_through_the_list(full_page: Open, table: pd.DataFrame) -> None:
    t = some_missed(table)
    ids = missed(table, t)
    page = full_page(f"/Failures?t={t!r}", wait_for=GRID)
    # the list's first page
    assert page.locator(GRID).evaluate_all("all => all.map(e => e.dataset.id)") == ids[:24]
    wait_for_chosen(page, ids[0])
    for key, at in (("j", 1), ("j", 2), ("j", 3), ("k", 2)):
        page.keyboard.press(key)
        wait_for_chosen(page, ids[at])
        page.get_by_text(f"{at + 1} of {len(ids)} in this list").wait_for()
        # the picture beside the list follows
        page.locator(f".st-key-failures_pair img[alt='{ids[at]}']").wait_for()
    page.locator(GRID).nth(6).click()
    wait_for_chosen(page, ids[6])
    page.keyboard.press("k")
    wait_for_chosen(page, ids[5])
    page.wait_for_url(lambda url: f"sample={ids[5]}".replace("/", "%2F") in url)
    # who writes does not move
    note = only_note(page)
    note.press_sequentially("jkj")
    assert note.input_value() == "jkj"
    page.wait_for_timeout(500)
    wait_for_chosen(page, ids[5])
    note.fill("")
    # Sample votes has the same image, and the way back
    page.get_by_role("button", name="Open in Sample votes").click()
    page.wait_for_url("**/Sample_votes*")
    page.locator(f"img[alt*='{ids[5]}']").first.wait_for()
    page.get_by_role("link", name="Failures").click()
    wait_for_chosen(page, ids[5])


def test_a_note_is_found_after_a_reload_and_in_the_file(
    full_page: Open, table: pd.DataFrame, full_folder: Path, tmp_path: Path
) -> None:
    t = some_missed(table)
    one = missed(table, t)[3]
    text = 'half a ring; #1, "maybe"\nlook again'
    page = full_page(f"/Failures?t={t!r}&sample={one}", wait_for=GRID)
    wait_for_chosen(page, one)
    page.get_by_role("radio", name="label wrong").or_(page.get_by_role("button", name="label wrong")).click()
    page.get_by_text("Kept 20").wait_for()
    page.locator(f"{GRID}.chosen", has_text="✎ label wrong").wait_for()
    note = only_note(page)
    note.fill(text)
    note.press("Control+Enter")
    found = []
    for _ in range(100):
        with closing(sqlite3.connect(full_folder / "runs" / "notes.sqlite")) as db:
            found = db.execute("SELECT verdict, note FROM notes WHERE id = ?", (one,)).fetchall()
        if found == [("label wrong", text)]:
            break
        page.wait_for_timeout(100)
    assert found == [("label wrong", text)]

    page.reload()
    wait_for_chosen(page, one)
    assert only_note(page).input_value() == text
    page.locator("[data-testid=stMetric]", has_text="label wrong").get_by_text("1", exact=True).wait_for()
    with page.expect_download() as download:
        page.locator(".st-key-failures_export button").click()
    assert download.value.suggested_filename.startswith("sdviz-notes-")
    download.value.save_as(tmp_path / "notes.csv")
    written = (tmp_path / "notes.csv").read_text()
    assert "# tally, label wrong: 1\n" in written
    row = pd.read_csv(tmp_path / "notes.csv", comment="#").set_index("id").loc[one]
    expected = table.set_index("id").loc[one]
    assert (row["verdict"], row["note"], row["called"]) == ("label wrong", text, "ID")
    assert (row["set"], row["score"], row["threshold"]) == (expected["set"], expected["total"], t)


def test_the_slider_changes_the_counts_to_what_numpy_says(full_page: Open, table: pd.DataFrame) -> None:
    held_out = np.sort(table["total"][table["role"] == "id"])
    page = full_page("/Failures?f_show=alarms", wait_for=GRID)
    thumb = page.locator(".st-key-failures_recall input[type=range]").first
    thumb.focus()
    for _ in range(2):  # 5 % in steps of one of 40 images
        thumb.press("ArrowLeft")
    t = held_out[int(np.ceil(0.9 * len(held_out))) - 1]
    alarms = int((held_out > t).sum())
    page.get_by_text(f"{alarms} false alarms").wait_for()
    page.get_by_text(f"False alarms: {alarms}").wait_for()
    page.locator(GRID).nth(alarms - 1).wait_for()
    assert page.locator(GRID).count() == alarms
    page.wait_for_url(lambda url: f"t={float(t)!r}" in url)


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1024, True)])
def test_nothing_sticks_out(
    full_page: Open,
    table: pd.DataFrame,
    sticking_out: Callable[[Page], list[str]],
    is_dark: Callable[[Page], bool],
    width: int,
    dark: bool,
) -> None:
    page = full_page(f"/Failures?t={some_missed(table)!r}", dark, width, wait_for=GRID)
    page.locator(".stVegaLiteChart .mark-rect path, .stVegaLiteChart canvas").first.wait_for()
    assert is_dark(page) == dark
    assert sticking_out(page) == []
    # pictures 3 to 6 times their own size, pixel by pixel
    for place in (GRID, ".st-key-failures_pair .cell"):
        style = page.locator(f"{place} img").first.evaluate(
            "e => [getComputedStyle(e).imageRendering, e.clientWidth, e.naturalWidth]"
        )
        assert style[0] == "pixelated" and style[2] == 32 and style[1] in (96, 128, 160, 192)
    page.get_by_text("Near-duplicates", exact=True).click()
    page.locator(".st-key-failures_pair_grid img").first.wait_for()
    page.get_by_text("pairs, distances").wait_for()
    assert sticking_out(page) == []
    page.get_by_role("button", name="Advanced").click()
    page.get_by_text("The score is Eq. 6").wait_for()
    assert sticking_out(page) == []
    assert "Traceback" not in page.content()
