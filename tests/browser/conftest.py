from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cut_bundle import save_cut_bundle
from tests.patience import patience
from tests.serving import serve
from tests.tiny_bundle import save_tiny_bundle

sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# What lies outside its place or is wider than it, in the page and in the components' shadow trees
STICKING_OUT = """() => {
  const found = [], right = document.documentElement.clientWidth;
  const walk = root => root.querySelectorAll('*').forEach(e => {
    if (e.shadowRoot) walk(e.shadowRoot);
    if (!e.matches(`.wrap, .grid, .grid *, .flow, .flow *, .scrub, .scrub *, button *, [data-testid=stMain],
      [data-testid=stCaptionContainer], [data-testid=stMarkdownContainer] p, [data-testid=stMetric] *,
      [data-testid=stWidgetLabel] *, [data-testid=stSelectbox] *`)) return;
    const box = e.getBoundingClientRect();
    if (!box.width || getComputedStyle(e).position === 'absolute') return;
    if (box.right > right + 1 || (e.scrollWidth > e.clientWidth + 1 && e.clientWidth)) {
      found.push(`${e.tagName}.${e.className}: ${e.textContent.slice(0, 40)}`);
    }
  });
  walk(document);
  return found;
}"""


# Words whose contrast with what lies behind them is below 3 to 1, in the page and in shadow trees. What is
# disabled may be faint, a map's numbers lie on its colours, and the colours of code are Streamlit's own.
FAINT = """() => {
  const found = [];
  const rgba = text => {
    const v = (text.match(/[\\d.]+/g) || []).map(Number);
    return [v[0], v[1], v[2], v.length > 3 ? v[3] : 1];
  };
  const over = (top, below) => below.map((c, i) => top[i] * top[3] + c * (1 - top[3]));
  const up = e => e.parentElement || (e.getRootNode() instanceof ShadowRoot ? e.getRootNode().host : null);
  const behind = e => {
    const layers = [], box = e.getBoundingClientRect();
    const x = box.left + box.width / 2, y = box.top + box.height / 2;
    for (; e; e = up(e)) {
      const at = e.getBoundingClientRect();
      const outside = x < at.left || x > at.right || y < at.top || y > at.bottom;
      if (outside && getComputedStyle(e).overflow === 'visible') continue;
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = c => c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const walk = root => root.querySelectorAll('*').forEach(e => {
    if (e.shadowRoot) walk(e.shadowRoot);
    const words = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
    if (!words || !e.checkVisibility({visibilityProperty: true, opacityProperty: true})) return;
    if (e.closest('style, script, defs, header, .heatmap-label, .token')) return;
    // the numbers of a map stand on its colours; tests/unit/ui/charts/test_plotly_figure.py measures them
    if (e.closest('.annotation') && e.closest('.js-plotly-plot')?.querySelector('.heatmaplayer image')) return;
    if (e.closest(':disabled, [aria-disabled=true]')) return;
    const label = e.closest('[data-testid=stWidgetLabel], label');
    if (label && label.parentElement.querySelector(':disabled')) return;
    const box = e.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) return;
    const style = getComputedStyle(e), ground = behind(e);
    const ink = rgba(e instanceof SVGElement ? style.fill : style.color);
    for (let n = e; n; n = up(n)) ink[3] *= Number(getComputedStyle(n).opacity);
    const two = [light(over(ink, ground)), light(ground)].sort((a, b) => b - a);
    const ratio = (two[0] + 0.05) / (two[1] + 0.05);
    if (ratio < 3) found.push(`${ratio.toFixed(1)} ${e.tagName}.${e.className.baseVal ?? e.className}: ` +
      words.slice(0, 40));
  });
  walk(document);
  return found;
}"""


@pytest.fixture
def faint() -> Callable[[sync_api.Page], list[str]]:
    """Names the words of an open page that can hardly be read, once it has come to rest."""

    def find(page: sync_api.Page) -> list[str]:
        found = page.evaluate(FAINT)
        for _ in range(20):
            if not found:
                break
            page.wait_for_timeout(150)
            found = page.evaluate(FAINT)
        return list(found)

    return find


@pytest.fixture
def sticking_out() -> Callable[[sync_api.Page], list[str]]:
    """Names what is cut, or sticks out of its place or of the window, once an open page has come to rest."""

    def find(page: sync_api.Page) -> list[str]:
        found = page.evaluate(STICKING_OUT)
        for _ in range(20):
            if not found:
                break
            page.wait_for_timeout(150)
            found = page.evaluate(STICKING_OUT)
        return list(found)

    return find


@pytest.fixture
def is_dark() -> Callable[[sync_api.Page], bool]:
    """Whether an open page stands on a dark ground."""

    def ask(page: sync_api.Page) -> bool:
        colour = page.evaluate(
            "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
        )
        return max(int(v) for v in colour[4:-1].split(",")) < 60

    return ask


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; without one the test is skipped, or fails where SDVIZ_REQUIRE_BROWSER=1."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("SDVIZ_REQUIRE_BROWSER") == "1":
            pytest.fail("SDVIZ_REQUIRE_BROWSER=1, but there is no Chromium on the PATH")
        pytest.skip("there is no Chromium on the PATH")
    return path


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of these tests has its bundle and data; its output goes to log.txt there."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def server(app_folder: Path) -> Iterator[str]:
    """The real app with a small bundle of random weights; gives its address."""
    save_tiny_bundle(app_folder / "checkpoints" / "tiny")
    with serve(app_folder) as address:
        yield address


@pytest.fixture(scope="session")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server of `full_page` has its bundle, `checkpoints/full`."""
    return tmp_path_factory.mktemp("full")


@pytest.fixture(scope="session")
def full_server(full_folder: Path) -> Iterator[str]:
    """The real app with a small bundle that has everything; gives its address."""
    save_cut_bundle(full_folder / "checkpoints" / "full")
    with serve(full_folder) as address:
        yield address


@contextmanager
def pages_of(chromium: str, server: str) -> Iterator[Callable[..., sync_api.Page]]:
    """Opens pages of that server, each in a browser session of its own, and waits until it stands."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)

        def open_page(
            path: str, dark: bool = False, width: int = 1440, wait_for: str = ".grid img"
        ) -> sync_api.Page:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                accept_downloads=True,
            )
            page = context.new_page()
            page.set_default_timeout(patience(60_000))
            page.goto(server + path)
            page.wait_for_selector("h1")
            page.wait_for_selector(wait_for)
            return page

        yield open_page
        browser.close()


@pytest.fixture
def new_page(chromium: str, server: str) -> Iterator[Callable[..., sync_api.Page]]:
    """Opens a page of the app with the bundle of random weights."""
    with pages_of(chromium, server) as open_page:
        yield open_page


@pytest.fixture
def full_page(chromium: str, full_server: str) -> Iterator[Callable[..., sync_api.Page]]:
    """Opens a page of the app with the bundle that has everything."""
    with pages_of(chromium, full_server) as open_page:
        yield open_page
