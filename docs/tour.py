"""Makes the pictures of docs/tour.md and README.md from the app on the shipped bundle.

Run as `python docs/tour.py`. Needs Chromium on the PATH and Playwright (requirements-dev.txt).
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "tour"
# the first picture of README.md shows the whole page, the others one screen
FIRST, FIRST_HEIGHT = "readme", 1190
WIDTH, HEIGHT = 1440, 900
SHOWN_WIDTH = 1200
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
# a near-OOD image that the detector misses, as docs/tour.md tells
SAMPLE = "shapes-novel/test/00839"
NO_PROGRESS = "!document.querySelector('[data-testid=stProgress]')"


def idle(page: Page) -> None:
    """Waits until no script runs and all pictures are there."""
    page.wait_for_timeout(400)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=120_000)
    page.wait_for_timeout(900)


def laid_out(page: Page) -> None:
    """Waits until t-SNE is there."""
    page.wait_for_function(NO_PROGRESS, timeout=180_000)
    idle(page)


def lasso(page: Page) -> None:
    """Draws a lasso around the right-hand group of the last epoch."""
    page.get_by_role("button", name="Lasso").click()
    box = page.locator(".stage").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.86 * box["width"], box["y"] + 0.52 * box["height"]
    page.mouse.move(x - 75, y)
    page.mouse.down()
    for dx, dy in ((-50, -50), (0, -75), (50, -50), (75, 0), (50, 50), (0, 75), (-50, 50)):
        page.mouse.move(x + dx, y + dy)
    page.mouse.up()
    idle(page)


def scroll(px: int) -> Callable[[Page], None]:
    """Scrolls the page."""

    def act(page: Page) -> None:
        page.mouse.move(WIDTH - 60, HEIGHT - 40)
        page.mouse.wheel(0, px)
        page.wait_for_timeout(500)

    return act


def view(name: str) -> Callable[[Page], None]:
    """Clicks a part of a segmented control."""
    return lambda page: page.get_by_test_id("stButtonGroup").get_by_text(name, exact=True).first.click()


# name of the picture, address, selector of the page's main element, actions before the picture
SHOTS: list[tuple[str, str, str, list[Callable[[Page], None]]]] = [
    ("home", "/", ".grid img", []),
    ("lab", "/Outlier_lab?S=200&w=4", ".grid img", []),
    (FIRST, "/Outlier_lab?S=200&w=4", ".grid img", []),
    ("pseudo-labels", "/Pseudo_labels", ".cell img", []),
    (
        "embeddings",
        "/Embeddings?embeddings_colour=as+in+Figure+3&embeddings_sets=train&embeddings_sets=shapes-novel"
        "&embeddings_sets=SD+outliers",
        ".scatter[data-frame]",
        [laid_out],
    ),
    ("selection", "", ".scatter[data-frame]", [lasso, scroll(640)]),
    ("failures", "/Failures", ".cell img", []),
    ("votes", f"/Sample_votes?sample={SAMPLE}&set=shapes-novel", ".votes-sum", []),
    ("neighbours", "", ".votes-sum", [scroll(560)]),
    ("histogram", "/Results", ".js-plotly-plot, svg", []),
    ("paper", "/Results", "svg", [view("Paper's tables")]),
    ("training", "/Training", '[data-testid="stButtonGroup"]', []),
]


def main() -> int:
    """Writes docs/lab.png and docs/tour/*.jpg, or only the pictures named as arguments."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("there is no Chromium on the PATH", file=sys.stderr)
        return 1
    wanted = sys.argv[1:]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        # only the runs and data that come with sdviz
        environment = os.environ | {"SDVIZ_RUNS": f"{home}/runs"}
        environment.pop("SDVIZ_DATA", None)
        command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
        server = subprocess.Popen(
            [*command, "--server.port", str(port)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        address = f"http://localhost:{port}"
        try:
            _wait_for(address)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                page.set_default_timeout(120_000)
                for name, path, ready, acts in SHOTS:
                    if wanted and name not in wanted:
                        continue
                    page.set_viewport_size(
                        {"width": WIDTH, "height": FIRST_HEIGHT if name == FIRST else HEIGHT}
                    )
                    if path:
                        page.goto(address + path)
                    page.wait_for_selector(ready, state="attached")
                    idle(page)
                    for act in acts:
                        act(page)
                        idle(page)
                    _save(name, page.screenshot())
                browser.close()
        finally:
            server.terminate()
            server.wait(30)
    return 0


def _wait_for(address: str) -> None:
    while True:
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)


def _save(name: str, png: bytes) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if name == FIRST:
        path = ROOT / "docs" / "lab.png"
        picture.save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
        return
    size = (SHOWN_WIDTH, round(picture.height * SHOWN_WIDTH / picture.width))
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.jpg"
    picture.resize(size, Image.Resampling.LANCZOS).save(path, quality=88, subsampling=0, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
