from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
CHART = ".box table tbody tr"
PLOT = ".js-plotly-plot .main-svg"


@pytest.fixture
def table(full_server: str, full_folder: Path) -> pd.DataFrame:
    """scores.parquet of the bundle that the server shows."""
    return pd.read_parquet(full_folder / "checkpoints" / "full" / "scores.parquet")


def own_threshold(table: pd.DataFrame) -> float:
    known = np.sort(table["total"][table["role"] == "id"])
    return float(known[math.ceil(round(0.95 * len(known), 6)) - 1])


def where_the_line_stands(page: Page) -> float:
    return float(page.locator(".box").evaluate("e => e.dataset.t"))


def counts(page: Page) -> dict[str, list[str]]:
    """What the table below the chart says, by set: called OOD, called ID, share called OOD, what that is."""
    rows = page.locator(CHART).evaluate_all(
        "all => all.map(r => [r.dataset.set, ...Array.from(r.children).slice(2).map(c => c.textContent)])"
    )
    return {row[0]: row[1:] for row in rows}


def counts_by_numpy(table: pd.DataFrame, t: float) -> dict[str, list[str]]:
    found = {}
    for name, part in table.groupby("set", sort=False):
        scores = part["total"].to_numpy()
        above = int((scores > t).sum())
        kind = "FPR, false alarms" if part["role"].iloc[0] == "id" else "TPR, OOD found"
        share = f"{100 * above / len(scores):.2f} %"
        found[str(name)] = [str(above), str(len(scores) - above), share, kind]
    return found


def test_dragging_the_line_changes_the_counts(full_page: Open, table: pd.DataFrame) -> None:
    own = own_threshold(table)
    page = full_page("/Results", wait_for=CHART)
    assert where_the_line_stands(page) == own
    assert counts(page) == counts_by_numpy(table, own)
    passed = (table["total"][table["role"] == "id"] <= own).mean()
    page.get_by_text(
        f"At 95 % ID recall: {100 * passed:.2f} % of ID images pass, {100 - 100 * passed:.2f} % are false"
    ).wait_for()

    # 1. the mouse: counts follow before it is let go
    svg, knob = page.locator(".box svg"), page.locator(".box .knob")
    box, at = svg.bounding_box(), knob.bounding_box()
    assert box is not None and at is not None
    x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    seen = set()
    for share in (0.2, 0.5, 0.35):
        page.mouse.move(box["x"] + share * box["width"], y + 60, steps=4)
        t = where_the_line_stands(page)
        assert counts(page) == counts_by_numpy(table, t)
        seen.add(str(counts(page)))
    assert len(seen) == 3
    assert "t=" not in page.url
    page.mouse.up()
    page.wait_for_url(lambda url: f"t={t!r}" in url)
    assert where_the_line_stands(page) == t != own
    knob_now = knob.bounding_box()
    assert knob_now is not None
    assert abs(knob_now["x"] + knob_now["width"] / 2 - box["x"] - 0.35 * box["width"]) < 2

    # 2. arrow keys, and a number that was typed
    page.locator(".box g.handle").focus()
    for key, further in (("ArrowRight", True), ("PageDown", False)):
        before = where_the_line_stands(page)
        page.keyboard.press(key)
        t = where_the_line_stands(page)
        assert (t > before) == further
        assert counts(page) == counts_by_numpy(table, t)
        page.wait_for_url(lambda url, t=t: f"t={t!r}" in url)
    # one after the other, faster than the server answers: none is lost
    start = where_the_line_stands(page)
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(60)
    end = where_the_line_stands(page)
    page.wait_for_url(lambda url: f"t={end!r}" in url)
    page.wait_for_timeout(500)
    edges = page.locator(".box g.handle").evaluate("e => [e.ariaValueMin, e.ariaValueMax].map(Number)")
    assert where_the_line_stands(page) == end
    assert math.log(end / start) == pytest.approx(6 / 200 * math.log(edges[1] / edges[0]), rel=0.01)
    # exactly at a score: that image is called ID
    t = float(np.sort(table["total"][table["set"] == "shapes-novel"])[17])
    field = page.locator(".box input")
    field.fill(repr(t))
    field.press("Enter")
    page.wait_for_url(lambda url: f"t={t!r}" in url)
    assert where_the_line_stands(page) == t
    assert counts(page) == counts_by_numpy(table, t)
    assert counts(page)["shapes-novel"][:2] == ["22", "18"]

    # 3. other bars and axes leave it where it is; the other pages have it
    page.get_by_text("Linear", exact=True).click()
    page.get_by_text("score of Eq. 6, higher is more OOD", exact=True).wait_for()
    assert where_the_line_stands(page) == t
    page.get_by_text("Counts", exact=True).click()
    page.wait_for_timeout(300)
    assert counts(page) == counts_by_numpy(table, t)
    page.get_by_role("link", name="Failures").click()
    page.get_by_text(f"Threshold {t:.4g}").first.wait_for()
    page.get_by_role("link", name="Results").click()
    page.locator(CHART).first.wait_for()
    assert counts(page) == counts_by_numpy(table, t)
    page.get_by_role("button", name="Back to 95 % ID recall").click()
    page.wait_for_url(lambda url: "t=" not in url)
    assert where_the_line_stands(page) == own
    assert counts(page) == counts_by_numpy(table, own)


def save(page: Page, key: str, kind: str, to: Path) -> Path:
    """Downloads what a button under "Save" gives."""
    button = page.locator(f".st-key-{key}_{kind} button")
    if not button.is_visible():
        page.get_by_role("button", name="Save").click()
        button.wait_for()
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename.endswith(f".{kind}")
    path = to / download.value.suggested_filename
    download.value.save_as(path)
    return path


def ink(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have nearly that colour."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(-1) < 24).sum())


def test_downloads_hold_what_the_page_shows(full_page: Open, table: pd.DataFrame, tmp_path: Path) -> None:
    known = table["total"][table["role"] == "id"].to_numpy()
    novel = table["total"][table["set"] == "shapes-novel"].to_numpy()
    t = float(np.median(novel))
    aurocs = {
        str(name): 100 * roc_auc_score(np.r_[np.zeros(40), np.ones(40)], np.r_[known, part["total"]])
        for name, part in table.groupby("set", sort=False)
        if name != "test"
    }
    page = full_page(f"/Results?results_view=ROC&t={t!r}", dark=True, wait_for=PLOT)
    page.locator(".js-plotly-plot .legendtext").first.wait_for()
    legend = page.locator(".js-plotly-plot .legendtext").evaluate_all("all => all.map(e => e.textContent)")
    assert [re.sub(r" \(.*\)", "", one) for one in legend[1:]] == [
        f"{name}: AUROC {auroc:.2f} %" for name, auroc in aurocs.items()
    ]

    # 1. CSV: where it comes from, and points that make the AUROC
    written = save(page, "results_roc", "csv", tmp_path).read_text()
    head = [line for line in written.splitlines() if line.startswith("#")]
    assert any(re.fullmatch(r"# bundle hash: [0-9a-f]{64}", line) for line in head)
    assert any(line.startswith("# configuration: ") for line in head) and "# k: 10" in head
    rows = pd.read_csv(io.StringIO(written), comment="#")
    assert list(rows.columns) == ["series", "ID flagged, FPR (%)", "OOD found, TPR (%)"]
    for name, auroc in aurocs.items():
        line = rows[rows["series"].str.startswith(f"{name} (")].to_numpy()[:, 1:].astype(float)
        assert np.trapezoid(line[:, 1], line[:, 0]) / 100 == pytest.approx(auroc, abs=1e-9)
    (dot,) = rows[rows["series"] == "shapes-novel at the threshold"].to_numpy()[:, 1:]
    assert dot.tolist() == [pytest.approx(100 * (known > t).mean()), pytest.approx(50.0)]

    # 2. SVG: readable without the network, the same words, dark on white
    svg = save(page, "results_roc", "svg", tmp_path).read_text()
    ElementTree.fromstring(svg)
    told = re.sub(r"\s+", " ", " ".join(re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)))
    for word in ("ROC, distance", "ID flagged, FPR (%)", "OOD found, TPR (%)", "chance", "bundle hash"):
        assert word in told, word
    for name, auroc in aurocs.items():
        assert f"{name} (" in told and f"AUROC {auroc:.2f} %" in told
    assert not re.findall(r"""(?:xlink:)?href="(?!#)""", svg) and "<image" not in svg

    # 3. PNG: dark on white also from the dark page, with the curves' colours and the provenance inside
    image = Image.open(save(page, "results_roc", "png", tmp_path))
    assert image.size[0] >= 1000 and image.size[1] >= 600
    assert image.getpixel((2, 2))[:3] == (255, 255, 255)  # type: ignore[index]
    colours = page.locator(".js-plotly-plot .scatterlayer .js-line").evaluate_all(
        "all => all.map(e => getComputedStyle(e).stroke.match(/[0-9]+/g).slice(0, 3).map(Number))"
    )
    for colour in (colours[0], colours[-1]):
        assert ink(image, tuple(colour)) > 200, colour
    hash_line = next(line for line in head if line.startswith("# bundle hash"))
    assert hash_line.split(": ")[1][:12] in image.info["Description"]

    # 4. the histogram: the threshold that was dragged stands in the file
    page.get_by_text("Histogram", exact=True).click()
    page.locator(CHART).first.wait_for()
    written = save(page, "results_histogram", "csv", tmp_path).read_text()
    assert f"# threshold: {t:.6g}\n" in written
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.locator(".st-key-results_scores button").click()
    download.value.save_as(tmp_path / "scores.csv")
    rows = pd.read_csv(tmp_path / "scores.csv", comment="#")
    assert rows["id"].tolist() == table["id"].tolist() and np.array_equal(rows["total"], table["total"])


def test_the_report_opens_without_the_app(full_page: Open, table: pd.DataFrame, tmp_path: Path) -> None:
    t = float(np.median(table["total"][table["set"] == "shapes-novel"]))
    page = full_page(f"/Results?results_view=Report&t={t!r}", wait_for=".st-key-results_report button")
    with page.expect_download() as download:
        page.locator(".st-key-results_report button").click()
    download.value.save_as(tmp_path / "report.html")

    asked: list[str] = []
    opened = page.context.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    page.context.set_offline(True)
    opened.goto((tmp_path / "report.html").as_uri())
    opened.get_by_role("heading", name="Worst failures").wait_for()
    outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    assert outside == [] and errors == []
    # every picture is drawn, and no part is wider than the page
    assert opened.locator("figure svg").count() >= 5
    pictures = opened.locator(".worst img").evaluate_all("all => all.map(e => e.complete && e.naturalWidth)")
    assert pictures and set(pictures) == {32}
    wide = opened.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    missed = int((table["total"][table["set"] == "shapes-novel"] <= t).sum())
    opened.get_by_text(f"{missed} of 40 missed").wait_for()
    page.context.set_offline(False)


# what only that view has
VIEWS = {
    "Histogram": CHART,
    "ROC": f".st-key-results_roc {PLOT}",
    "Precision-recall": f".st-key-results_pr {PLOT}",
    "Metrics": ".st-key-results_metrics_csv",
    "Controls": "text=measured without controls",
    "k x α": f".st-key-results_k_alpha {PLOT}",
    "S x w": "text=It takes runs",
    "Paper's tables": ".st-key-results_paper_4",
    "Compare": ".st-key-results_compare_csv",
    "Report": ".st-key-results_report",
}


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1024, True)])
def test_nothing_sticks_out(
    full_page: Open,
    sticking_out: Callable[[Page], list[str]],
    faint: Callable[[Page], list[str]],
    is_dark: Callable[[Page], bool],
    width: int,
    dark: bool,
) -> None:
    page = full_page("/Results", dark, width, wait_for=CHART)
    assert is_dark(page) == dark
    for view, mark in VIEWS.items():
        page.get_by_text(view, exact=True).first.click()
        page.locator(mark).first.wait_for()
        page.wait_for_function("!document.querySelector('[data-stale=true]')")
        assert sticking_out(page) == [], view
        assert faint(page) == [], view
        # tables stay within the column
        wide = page.locator(".resulttable").evaluate_all(
            """all => all.filter(e => e.scrollWidth > e.clientWidth + 1
              || e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right + 1)
              .map(e => e.textContent.slice(0, 60))"""
        )
        assert wide == [], view
        # so do the buttons of a row of choices
        cut = page.locator("[data-testid=stButtonGroup] button").evaluate_all(
            """all => all.filter(e => e.getBoundingClientRect().right
              > e.closest('[data-testid=stButtonGroup]').getBoundingClientRect().right + 1)
              .map(e => e.textContent)"""
        )
        assert cut == [], view
        assert "Traceback" not in page.content()
