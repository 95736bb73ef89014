from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


def wait_for(page: Page, title: str) -> None:
    page.locator("h1", has_text=title).wait_for()
    page.wait_for_timeout(500)
    page.wait_for_selector(IDLE)


def test_back_goes_one_page_back_whatever_pages_take_over(full_page: Open, full_folder: Path) -> None:
    """Values that go along from page to page change the address in place, those of widgets as well."""
    table = pd.read_parquet(full_folder / "checkpoints" / "full" / "scores.parquet")
    one = table[table["role"] != "id"]["id"].iloc[0]
    page = full_page(f"/Sample_votes?bundle=full&sample={one}&t=0.3&k=5")
    wait_for(page, "Sample votes")
    n = page.evaluate("history.length")
    way = ("Failures", "Embeddings", "Results")
    for title in way:
        page.get_by_role("link", name=title, exact=True).click()
        wait_for(page, title)
        page.wait_for_function("location.search.includes('t=0.3')")
    page.get_by_text("ROC", exact=True).click()
    page.wait_for_function("location.search.includes('results_view=ROC')")
    page.get_by_role("link", name="Failures", exact=True).click()
    wait_for(page, "Failures")
    assert page.evaluate("history.length") == n + 4
    for title in (*way[::-1], "Sample votes"):
        page.go_back()
        wait_for(page, title)
        for part in ("bundle=full", "sample=", "t=0.3", "k=5"):
            page.wait_for_function(f"location.search.includes('{part}')")
    page.go_forward()
    wait_for(page, "Failures")
    # a button to another page is one step as well
    page.get_by_role("button", name="Open in Sample votes").click()
    wait_for(page, "Sample votes")
    page.go_back()
    wait_for(page, "Failures")
    assert "t=0.3" in page.url
