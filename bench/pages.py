"""Times the first open of each page after the server's start, and warm interactions; measures the memory.

Run as `python bench/pages.py [--repeats 3] [--bundle checkpoints/shapes]`. Needs Chromium on the PATH and
Playwright (requirements-dev.txt). Every first open has a new server; the clock starts when its health check
answers, after it has loaded what pages need. A page is open when its script has ended, its main element is
there and every chart is drawn. A warm interaction is timed in the page, from the click or key until its script
has ended and two frames are drawn. The memory is that of the server's process at rest, after each of five
bundles was opened on every page.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sdviz.nn.device import has_fast_bf16  # noqa: E402
from sdviz.nn.fastest import processor  # noqa: E402

# the bars are higher without bfloat16 instructions
FAST = has_fast_bf16(torch.device("cpu"))
FIRST_OPEN_BAR_SEC = 3.0 if FAST else 5.0
WARM_BAR_SEC = 0.5 if FAST else 1.5
N_BUNDLES = 5
# until the work that a first interaction starts in the background has ended, such as a neighbour search
WARM_UP_MS = 8_000
# until the work that an open page starts in the background has ended
BETWEEN_MS = 3_000
# until the server has returned its free memory to the system
GIVEN_BACK_MS = 8_000
# a server at rest uses less than this share of a core for this many seconds
REST_PERCENT = 25.0
REST_LOOKS = 4
MOST_REST_SEC = 120
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@dataclass(frozen=True)
class Step:
    """A warm interaction.

    Attributes:
        name: For the table.
        act: The interaction.
        back: Undoes it.
        has_bar: False for work of the network that cannot be done ahead.
    """

    name: str
    act: Callable[[Page], None]
    back: Callable[[Page], None]
    has_bar: bool = True


def key_on_slider(widget: str, key: str) -> Callable[[Page], None]:
    """Presses a key on a slider."""

    def act(page: Page) -> None:
        page.locator(f".st-key-{widget} input[type=range]").first.press(key)

    return act


def slide(widget: str, name: str) -> Step:
    """One step up on a slider."""
    return Step(name, key_on_slider(widget, "ArrowRight"), key_on_slider(widget, "ArrowLeft"))


def jump(widget: str, steps: int) -> Callable[[Page], None]:
    """Moves a slider by several steps at once; the app sees only the last value."""

    def act(page: Page) -> None:
        slider = page.locator(f".st-key-{widget} input[type=range]").first
        slider.focus()
        slider.evaluate(
            """(e, by) => Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value')
              .set.call(e, +e.value + by * e.step)""",
            steps - 1,
        )
        page.keyboard.press("ArrowRight")

    return act


def choose_view(name: str) -> Callable[[Page], None]:
    """Clicks a part of a segmented control."""

    def act(page: Page) -> None:
        page.get_by_test_id("stButtonGroup").get_by_text(name, exact=True).first.click()

    return act


def choose(widget: str, option: str) -> Callable[[Page], None]:
    """Chooses an option of a select box; opening its list is timed too."""

    def act(page: Page) -> None:
        page.locator(f".st-key-{widget} input").first.click()
        page.get_by_role("option", name=option, exact=True).click()

    return act


# address, selector of the page's main element, warm interactions
PAGES: dict[str, tuple[str, str, list[Step]]] = {
    "Home": ("/", ".grid img", []),
    "Outlier lab": (
        "/Outlier_lab",
        ".grid img",
        [
            # always forward, because pictures made before are kept
            Step("S one step up: six new outliers", key_on_slider("S", "ArrowRight"), lambda page: None),
            Step("w four steps up at once", jump("w", 4), lambda page: None, has_bar=False),
        ],
    ),
    "Pseudo-labels": (
        "/Pseudo_labels",
        ".cell img",
        [
            Step(
                "look at one cluster",
                choose("pseudo_labels_cluster", "star"),
                choose("pseudo_labels_cluster", "cross"),
            )
        ],
    ),
    "Embeddings": (
        "/Embeddings",
        ".scatter[data-frame]",
        [
            Step(
                "colour by cluster",
                choose("embeddings_colour", "cluster"),
                choose("embeddings_colour", "set"),
            )
        ],
    ),
    "Sample votes": ("/Sample_votes", ".cell img", [slide("votes_k", "k one up")]),
    "Failures": ("/Failures", ".cell img", [slide("failures_recall", "threshold one step up")]),
    "Results": (
        "/Results",
        ".st-key-results_threshold svg",
        [
            slide("results_k", "k one up"),
            Step("ROC curves", choose_view("ROC"), choose_view("Histogram")),
        ],
    ),
    "Training": ("/Training", '[data-testid="stButtonGroup"]', []),
}


STARTS: list[float] = []  # seconds from each launch until the server answered


@contextmanager
def server(checkpoints: Path, home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Runs the app and yields its address and process."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {"SDVIZ_CHECKPOINTS": str(checkpoints), "SDVIZ_RUNS": str(home / "runs")}
    environment["SDVIZ_DATA"] = str(home / "data")
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    with (home / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [*command, "--server.port", str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    address = f"http://localhost:{port}"
    launched = time.perf_counter()
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=120)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    raise SystemExit((home / "log.txt").read_text()) from None
                time.sleep(0.05)
        STARTS.append(time.perf_counter() - launched)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


# whether no part of the page is still loading and all charts are drawn
DRAWN = """() => !document.querySelector('[data-testid=stSkeleton]')
  && [...document.querySelectorAll('[data-testid=stPlotlyChart]')].every(c => c.querySelector('.main-svg'))
  && [...document.querySelectorAll("[data-testid=stVegaLiteChart]")]
    .every(c => c.querySelector("svg, canvas"))"""


def wait_until_idle(page: Page) -> None:
    """Waits until no script runs."""
    page.wait_for_selector(IDLE, timeout=120_000)


def wait_until_rest(process: psutil.Process) -> None:
    """Waits until the server's background work has ended, which uses memory of its own."""
    deadline, quiet = time.monotonic() + MOST_REST_SEC, 0
    while quiet < REST_LOOKS:
        quiet = quiet + 1 if process.cpu_percent(interval=1.0) < REST_PERCENT else 0
        if time.monotonic() > deadline:
            print("the server did not come to rest", file=sys.stderr)
            return


def time_open(page: Page, address: str, ready: str) -> float:
    """Seconds from the request to the finished page."""
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("h1", timeout=120_000)
    page.wait_for_selector(ready, timeout=120_000, state="attached")
    wait_until_idle(page)
    page.wait_for_function(DRAWN, timeout=120_000)
    return time.perf_counter() - started


# The clock runs in the page itself, from the first key or click to the second frame after the script's end,
# when the result is painted. A driver outside would notice either tens to hundreds of milliseconds later.
CLOCK = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const clock = window.sdvizClock ??= {};
  Object.assign(clock, {began: null, ran: false, ended: null});
  if (!clock.listens) for (const kind of ['pointerdown', 'keydown'])
    document.addEventListener(kind, () => { clock.began ??= performance.now(); }, true);
  clock.listens = true;
  clock.watch?.disconnect();
  clock.watch = new MutationObserver(() => {
    if (clock.began === null) return;
    if (app.dataset.testScriptState === 'running') { clock.ran = true; clock.ended = null; }
    else if (clock.ran) requestAnimationFrame(() => requestAnimationFrame(() => {
      if (app.dataset.testScriptState === 'notRunning') clock.ended ??= performance.now(); }));
  });
  clock.watch.observe(app, {attributes: true}); }"""


def time_step(page: Page, step: Step) -> float:
    """Seconds from the interaction until its result is painted."""
    page.evaluate(CLOCK)
    step.act(page)
    page.wait_for_function("() => window.sdvizClock.ran", timeout=10_000)
    page.wait_for_function("() => window.sdvizClock.ended !== null", timeout=120_000)
    return float(page.evaluate("() => window.sdvizClock.ended - window.sdvizClock.began")) / 1_000


def main() -> int:
    """Prints the tables; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--bundle", type=Path, default=ROOT / "checkpoints" / "shapes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pages", nargs="*", default=list(PAGES))
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("not measured: no Chromium on the PATH")
        return 1
    missed = False
    load = f"load average {os.getloadavg()[0]:.1f}"
    print(f"{processor()}. {os.cpu_count()} cores, {load}; medians of {options.repeats}\n")
    print("| page | first open | opened again | warm interaction | time |\n|---|--:|--:|---|--:|")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        home = Path(name)
        checkpoints = home / "checkpoints"
        checkpoints.mkdir()
        shutil.copytree(options.bundle, checkpoints / options.bundle.name)
        layouts = options.bundle.parent / ".layouts"
        if layouts.is_dir():
            shutil.copytree(layouts, checkpoints / layouts.name)
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for title in options.pages:
            path, ready, steps = PAGES[title]
            opens, again = [], []
            warm: dict[str, list[float]] = {step.name: [] for step in steps}
            for _ in range(options.repeats):
                with server(checkpoints, home) as (address, _process):
                    page = browser.new_page(viewport={"width": 1440, "height": 900})
                    opens.append(time_open(page, address + path, ready))
                    page.wait_for_timeout(BETWEEN_MS)
                    page.close()
                    page = browser.new_page(viewport={"width": 1440, "height": 900})
                    again.append(time_open(page, address + path, ready))
                    for step in steps:
                        time_step(page, step)  # the first time may load what later ones use
                        page.wait_for_timeout(WARM_UP_MS)
                        step.back(page)
                        page.wait_for_timeout(500)
                        wait_until_idle(page)
                        warm[step.name].append(time_step(page, step))
                    page.close()
            first = statistics.median(opens)
            missed |= first > FIRST_OPEN_BAR_SEC
            rows = [(s, statistics.median(t)) for s, t in warm.items()] or [("", float("nan"))]
            no_bar = {step.name for step in steps if not step.has_bar}
            for i, (step_name, seconds) in enumerate(rows):
                missed |= seconds > WARM_BAR_SEC and step_name not in no_bar
                begin = f"| {title} | {first:.2f} s | {statistics.median(again):.2f} s" if i == 0 else "| | |"
                print(f"{begin} | {step_name} | {f'{seconds:.2f} s' if step_name else ''} |", flush=True)
        if STARTS:
            print(f"\nFrom the command to the server's first answer: {statistics.median(STARTS):.2f} s")
        if not options.no_memory:
            missed |= not _memory(browser, options.bundle, home)
        browser.close()
    return int(missed)


def _memory(browser: object, bundle: Path, home: Path) -> bool:
    """Opens five bundles one after the other on every page; returns whether memory stays near that of two."""
    many = home / "many"
    for i in range(N_BUNDLES):
        _other_bundle(bundle, many / f"bundle{i}")
    seen = []
    with server(many, home) as (address, process):
        page = browser.new_page(viewport={"width": 1440, "height": 900})  # type: ignore[attr-defined]
        time_open(page, address, PAGES["Home"][1])
        for i in range(N_BUNDLES):
            if i:
                choose("bundle", f"bundle{i}")(page)
            for title, (path, ready, _steps) in PAGES.items():
                page.get_by_test_id("stSidebar").get_by_role("link", name=title, exact=True).click()
                page.wait_for_function("path => location.pathname === path", arg=path)
                page.wait_for_selector(ready, timeout=120_000, state="attached")
                wait_until_idle(page)
            page.get_by_test_id("stSidebar").get_by_role("link", name="Home", exact=True).click()
            wait_until_idle(page)
            wait_until_rest(process)
            page.wait_for_timeout(GIVEN_BACK_MS)
            seen.append(process.memory_info().rss / 2**20)
        page.close()
    print(f"\nMemory of the server, MiB, after every page with bundle 1 to {N_BUNDLES}: ", end="")
    print(", ".join(f"{one:.0f}" for one in seen))
    grown = max(seen[2:]) - seen[1]
    print(f"Most after the second bundle: {grown:+.0f} MiB")
    # compared with the memory of one bundle, without that of the libraries
    return grown < max(60.0, 0.5 * (seen[1] - seen[0]))


def _other_bundle(source: Path, target: Path) -> None:
    """Copies a bundle and changes its hash."""
    shutil.copytree(source, target)
    manifest = target / "bundle.json"
    manifest.write_text(manifest.read_text().rstrip() + "\n" * (2 + int(target.name[-1])))


if __name__ == "__main__":
    sys.exit(main())
