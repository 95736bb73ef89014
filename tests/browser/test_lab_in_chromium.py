from __future__ import annotations

import base64
import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def wait_for_caption(page: Page, text: str) -> None:
    page.locator("[data-testid=stCaptionContainer]", has_text=text).first.wait_for()


def press(page: Page, slider: str, key: str, times: int) -> None:
    """Moves a slider by the keyboard, which a person can do as well as by the mouse."""
    thumb = page.locator(f".st-key-{slider} input[type=range]").first
    thumb.focus()
    for _ in range(times):
        thumb.press(key)


def test_s_and_w_change_picture_and_caption(new_page: Open) -> None:
    page = new_page("/Outlier_lab?n=3")
    wait_for_caption(page, "S = 100 (σ 0.34), w = 2")
    first = page.locator("img[alt^='outlier']").first.get_attribute("src")
    press(page, "S", "ArrowRight", 6)
    wait_for_caption(page, "S = 130 (σ 0.44), w = 2")
    second = page.locator("img[alt^='outlier']").first.get_attribute("src")
    press(page, "w", "ArrowRight", 4)
    wait_for_caption(page, "S = 130 (σ 0.44), w = 3")
    third = page.locator("img[alt^='outlier']").first.get_attribute("src")
    assert len({first, second, third}) == 3
    assert "S=130" in page.url
    assert "w=3" in page.url
    # the same link in another browser session shows the same picture
    again = new_page(page.url.removeprefix(page.url.split("/Outlier_lab")[0]))
    wait_for_caption(again, "S = 130 (σ 0.44), w = 3")
    assert again.locator("img[alt^='outlier']").first.get_attribute("src") == third


def test_pictures_are_crisp_and_four_fit_without_scrolling(new_page: Open) -> None:
    page = new_page("/Outlier_lab?n=4")
    wait_for_caption(page, "network calls")
    for row in ("original", "outlier", "control"):
        images = page.locator(f".grid img[alt^='{row}']")
        assert images.count() == 4
        for i in range(4):
            box = images.nth(i).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 900
            assert box["x"] + box["width"] <= 1440
            style = images.nth(i).evaluate(
                "e => [getComputedStyle(e).imageRendering, e.clientWidth, e.naturalWidth]"
            )
            assert style == ["pixelated", 128, 32]


def test_the_zip_opens_and_holds_what_is_shown(new_page: Open, tmp_path: Path) -> None:
    page = new_page("/Outlier_lab?n=2&view=Download")
    wait_for_caption(page, "network calls")
    shown = page.locator("img[alt^='outlier']").first.get_attribute("src")
    assert shown is not None
    button = page.get_by_role("button", name="ZIP of PNGs and manifest.csv")
    button.wait_for()
    with page.expect_download() as download:
        button.click()
    path = tmp_path / "lab.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode("utf-8-sig"))))
        kept = np.asarray(Image.open(io.BytesIO(archive.read("outlier/00.png"))))
    assert [r["role"] for r in rows] == ["outlier", "control"] * 2
    assert {r["S"] for r in rows} == {"100"}
    raw = base64.b64decode(shown.split(",", 1)[1])
    assert np.array_equal(kept, np.asarray(Image.open(io.BytesIO(raw))))


def test_the_scrub_strip_follows_the_mouse_without_the_server(new_page: Open) -> None:
    page = new_page("/Outlier_lab?n=1")
    strip = page.locator(".strip")
    strip.wait_for()
    wait_for_caption(page, "Move the mouse over the strip")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    assert box is not None
    page.context.set_offline(True)
    seen = []
    for part in (0.02, 0.5, 0.98):
        page.mouse.move(box["x"] + part * box["width"], box["y"] + box["height"] / 2)
        seen.append(
            (page.locator(".says b").inner_text(), page.locator(".stage img").nth(2).get_attribute("src"))
        )
    page.context.set_offline(False)
    assert [s for s, _ in seen] == ["S = 0", "S = 100", "S = 200"]
    assert len({src for _, src in seen}) == 3


def test_a_click_on_the_sheet_sets_the_sliders(new_page: Open) -> None:
    page = new_page("/Outlier_lab?n=1&view=S+x+w+sheet")
    wait_for_caption(page, "The same noise in every cell")
    page.locator("button.cell[data-id='160|4.0']").click()
    wait_for_caption(page, "S = 160 (σ 0.56), w = 4")
    assert "S=160" in page.url


def test_a_click_on_a_picture_moves_the_view_below_to_it(new_page: Open) -> None:
    page = new_page("/Outlier_lab?n=3&view=Trajectory")
    wait_for_caption(page, "About image 1 of 3")
    page.locator("img[alt^='original']").nth(2).click()
    wait_for_caption(page, "About image 3 of 3")
    # the link has it, for somebody else and for the way back from another page
    page.wait_for_url("**focus=3*")
    again = new_page(page.url.removeprefix(page.url.split("/Outlier_lab")[0]))
    wait_for_caption(again, "About image 3 of 3")
    page.get_by_role("link", name="Home").click()
    page.get_by_role("button", name="Open the outlier lab").wait_for()
    page.get_by_role("link", name="Outlier lab").click()
    wait_for_caption(page, "About image 3 of 3")
    page.wait_for_url("**focus=3*")


def test_clicks_that_set_the_sliders_leave_no_warning_in_the_terminal(new_page: Open, app_folder: Path) -> None:
    page = new_page("/Outlier_lab?n=1&view=S+x+w+sheet")
    wait_for_caption(page, "The same noise in every cell")
    page.locator("button.cell[data-id='40|1.0']").click()
    page.wait_for_url("**w=1*")
    wait_for_caption(page, "S = 40 ")
    page.get_by_text("Scrub S", exact=True).click()
    strip = page.locator(".strip")
    strip.wait_for()
    strip.scroll_into_view_if_needed()
    strip.click(position={"x": 3, "y": 5})
    wait_for_caption(page, "S = 0 (σ 0.00), w = 1")
    assert "S=0" in page.url
    said = (app_folder / "log.txt").read_text()
    assert "was created with a default value" not in said
    assert "Stack" not in said
    assert "Traceback" not in said


def test_picking_by_hand_fills_the_grid(new_page: Open) -> None:
    page = new_page("/Outlier_lab?n=2&view=Download")
    wait_for_caption(page, "network calls")
    page.get_by_role("button", name="Pick").click()
    cell = page.locator("button.cell[data-id^='shapes/test/']").nth(4)
    picked = cell.get_attribute("data-id")
    cell.click()
    page.locator(f".grid img[alt^='original'][alt$='{picked}']").wait_for()
    assert "pick=" in page.url


def test_an_upload_is_edited_and_a_broken_one_is_named(new_page: Open, tmp_path: Path) -> None:
    good, bad = tmp_path / "photo.png", tmp_path / "broken.png"
    Image.new("RGBA", (300, 120), (200, 30, 30, 128)).save(good)
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    page = new_page("/Outlier_lab?n=1")
    wait_for_caption(page, "network calls")
    page.locator(".st-key-data [role=combobox], .st-key-data input").first.click()
    page.get_by_role("option", name="your own upload").click()
    page.locator("input[type=file]").set_input_files([good, bad])
    page.locator("[data-testid=stAlert]", has_text="broken.png").wait_for()
    page.locator("img[alt^='original'][alt*='upload/']").wait_for()
    wait_for_caption(page, "network calls")
    page.get_by_role("link", name="Home").click()
    page.get_by_role("button", name="Open the outlier lab").wait_for()
    page.get_by_role("link", name="Outlier lab").click()
    wait_for_caption(page, "1 uploaded picture kept from before.")
    page.locator("img[alt^='original'][alt*='upload/']").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.locator("[data-testid=stAlert]", has_text="Drop pictures above").wait_for()
    assert page.locator("[data-testid=stException]").count() == 0


def test_two_people_at_once_see_their_own(new_page: Open) -> None:
    one, two = new_page("/Outlier_lab?n=2&draw=1"), new_page("/Outlier_lab?n=2&draw=2")
    press(one, "S", "ArrowRight", 2)
    press(two, "S", "ArrowLeft", 2)
    wait_for_caption(one, "S = 110 ")
    wait_for_caption(two, "S = 90 ")
    alts = [
        {page.locator("img[alt^='original']").nth(i).get_attribute("alt") for i in range(2)}
        for page in (one, two)
    ]
    assert not alts[0] & alts[1]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1024, 1440])
def test_nothing_sticks_out_in_either_theme(
    new_page: Open,
    sticking_out: Callable[[Page], list[str]],
    is_dark: Callable[[Page], bool],
    dark: bool,
    width: int,
) -> None:
    page = new_page("/Outlier_lab?n=16", dark, width)
    wait_for_caption(page, "Move the mouse over the strip")
    assert sticking_out(page) == []
    assert page.locator(".grid img[alt^='original']").count() == 16
    # bands of columns below each other, each with its row names
    assert (
        page.locator(".grid").filter(has=page.locator("img[alt^='heat'], img[alt^='difference']")).count()
        == ({1024: 4, 1440: 3}[width])
    )
    for view, texts in (
        ("S x w sheet", "The same noise in every cell"),
        ("Trajectory", "What the network believes"),
    ):
        page.get_by_text(view, exact=True).click()
        wait_for_caption(page, texts)
        assert sticking_out(page) == []
    assert is_dark(page) == dark


def test_the_landing_page_leads_into_the_lab(new_page: Open) -> None:
    page = new_page("/")
    assert page.locator("img[alt^='outlier']").count() == 6
    page.get_by_role("button", name="Open the outlier lab").click()
    wait_for_caption(page, "network calls")
    assert page.url.split("?")[0].endswith("/Outlier_lab")
