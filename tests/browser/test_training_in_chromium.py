from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.patience import patience

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
Open = Callable[..., Page]


def only_run(app_folder: Path) -> Path:
    (run,) = [path for path in (app_folder / "runs").iterdir() if path.is_dir()]
    return run


def test_a_run_outlives_the_browser_and_its_bundle_opens_in_the_lab(new_page: Open, app_folder: Path) -> None:
    # 1. start it from the page
    page = new_page("/Training?training=New+run&profile=shapes-tiny", wait_for="text=Profile")
    start = page.get_by_role("button", name="Start", exact=False).last
    start.wait_for()
    start.click()
    page.get_by_role("radio", name="-shapes-tiny", exact=False).first.wait_for(state="attached")
    run = only_run(app_folder)
    assert "shapes-tiny" in run.name
    # 2. close the browser while its process works
    deadline = time.monotonic() + patience(120)
    while json.loads((run / "status.json").read_text())["state"] not in ("running", "done"):
        assert time.monotonic() < deadline, (run / "status.json").read_text()
        time.sleep(0.2)
    page.context.close()
    # 3. come back, and see it finish without touching anything
    back = new_page(f"/Training?training=Watch&run={run.name}", wait_for=f"text={run.name}")
    lab = back.get_by_role("button", name="Open in the lab")
    deadline = time.monotonic() + patience(600)
    while not lab.is_enabled():
        state = json.loads((run / "status.json").read_text())
        assert state["state"] in ("running", "done"), state
        assert time.monotonic() < deadline, state
        back.wait_for_timeout(500)
    # 4. its bundle in the lab
    lab.click()
    back.wait_for_url("**/Outlier_lab*")
    back.locator(".grid img[alt^='outlier']").first.wait_for()
    assert run.name in back.content()


def test_the_training_page_fits_and_shows_no_traceback(new_page: Open) -> None:
    for width, dark in ((1440, False), (1024, True)):
        page = new_page("/Training?training=New+run", dark, width, wait_for="text=Profile")
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert "Traceback" not in page.content()
