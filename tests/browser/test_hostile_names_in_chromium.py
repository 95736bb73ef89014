"""Markup, formulas and control characters in every name: nothing runs, nothing is fetched from elsewhere."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
import pytest
from playwright.sync_api import Page, sync_playwright
from safetensors.numpy import load_file, save_file

from sdviz import runs
from sdviz.analysis.cluster_names import FILE, rename
from sdviz.analysis.notes import NoteBook, Seen
from sdviz.bundle.manifest import MANIFEST, read_manifest
from sdviz.config.reading import load_config
from sdviz.ui.results.page import REPORT, VIEW_KEY, VIEWS
from tests.browser.conftest import ARGUMENTS
from tests.bundle_folders import edit_json, edit_manifest, sign
from tests.cut_bundle import save_cut_bundle
from tests.patience import patience
from tests.serving import ROOT, serve

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

MARKUP = (
    "<img src=x onerror=hacked=1><script>hacked=1</script><svg onload=hacked=1></svg>"
    "![p](http://evil.example/p.png)[l](javascript:hacked=1)$\\href{javascript:hacked=1}{k}$:red[c]</style>\x1b[31m"
)
FORMULA = "=1+1"
# a folder's name has no slash
RUN = "00001-<img src=x onerror=hacked=1>&lt;b"
CALCULATED = ("=", "+", "-", "@", "\t", "\r")

SEEN = """() => {
  const found = [];
  if (window.hacked !== undefined) found.push('a script ran');
  const walk = root => root.querySelectorAll('*').forEach(e => {
    if (e.shadowRoot) walk(e.shadowRoot);
    if (e.matches('img[src="x"], script:not([src]):not([type]), svg[onload]') && /hacked/.test(e.outerHTML))
      found.push(e.outerHTML.slice(0, 80));
    for (const a of e.attributes)
      if (/^on/.test(a.name) || /^\\s*javascript:/i.test(a.value)) found.push(`${e.tagName} ${a.name}`);
  });
  walk(document);
  return found;
}"""


def name(kind: str) -> str:
    return f"{kind} {MARKUP}"


def save_hostile_bundle(folder: Path) -> None:
    """A full bundle with markup as its classes, one set, ids of images and one other method."""
    save_cut_bundle(folder, n_id=120, n_per_set=20)
    classes = json.loads((folder / MANIFEST).read_text("utf-8"))["class_names"]
    group, method = name("set"), name("method")
    scores = pd.read_parquet(folder / "scores.parquet")
    of_set = scores["set"] == "digits"
    scores.loc[of_set, "id"] = [f"digits/test/{i}{MARKUP}" for i in range(of_set.sum())]
    scores.loc[of_set, "set"] = group
    scores.to_parquet(folder / "scores.parquet", index=False)
    features = load_file(folder / "ood_features.safetensors")
    renamed = {key.replace("digits", group): array.copy() for key, array in features.items()}
    save_file(renamed, folder / "ood_features.safetensors")
    report = json.loads((folder / "report.json").read_text("utf-8").replace('"digits"', json.dumps(group)))
    results = {one: found["modes"]["both"] for one, found in report["results"].items()}
    means = {role: found["both"] for role, found in report["means"].items()}
    report["baselines"] = {
        method: {"title": method, "settings": {method: method}, "results": results, "means": means}
    }
    (folder / "report.json").write_text(json.dumps(report), "utf-8")
    edit_manifest(
        folder,
        class_names=[f"{FORMULA}{i} {MARKUP}" for i in range(len(classes))],
        labels_from=name("labels"),
        config={"data": {"id": name("data")}, "evaluation": {"far": [group], "near": ["shapes-novel"]}},
    )
    sign(folder)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("checkpoints", "runs", "data"):
        (tmp_path / folder).mkdir()
    bundle = tmp_path / "checkpoints" / "<img src=x onerror=hacked=1>"
    save_hostile_bundle(bundle)
    monkeypatch.setenv("SDVIZ_RUNS", str(tmp_path / "runs"))
    made = runs.create(load_config(ROOT / "configs/shapes-tiny.yaml", ["device=cpu"]))
    run = runs.Run(made.path.rename(made.path.with_name(RUN)))
    said = {"stage": name("stage"), "error": name("error"), "devices": [name("device")]}
    edit_json(run.status_file, state="failed", **said)
    line = {"stage": name("stage"), "training": name("training"), "total": 9, "loss": 0.5}
    lines = [line | {"step": n} for n in (1, 2)]
    (run.path / "stats.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (run.path / "diffusion.done.json").write_text(json.dumps({"metrics": {name("metric"): 1.0}}))
    run.log(name("log"))
    bundle_hash, classes = read_manifest(bundle)[1], read_manifest(bundle)[0].class_names
    rename(tmp_path / "runs" / FILE, bundle_hash, 1, "<img src=x onerror=hacked=1>", classes)
    book = NoteBook(tmp_path / "runs" / "notes.sqlite")
    ids = pd.read_parquet(bundle / "scores.parquet")["id"]
    for one in (ids.iloc[0], ids.iloc[-1]):
        seen = Seen(name("set"), f"{FORMULA} {MARKUP}", 1.0, 0.5, MARKUP)
        book.set_text(bundle_hash, one, f"{FORMULA} {MARKUP}", seen, name("author"))
    return tmp_path


@pytest.fixture
def browser_page(chromium: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True).new_page()
        page.set_default_timeout(patience(60_000))
        yield page
        browser.close()


def settle(page: Page) -> None:
    """Waits until the page has been drawn."""
    page.wait_for_selector("h1")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(1000)


def test_no_name_runs_or_fetches_anything(home: Path, browser_page: Page) -> None:
    page, elsewhere, dialogs = browser_page, list[str](), list[str]()
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    with serve(home) as address:
        own = (address, "data:", "blob:")
        page.on("request", lambda one: None if one.url.startswith(own) else elsewhere.append(one.url))
        ids = pd.read_parquet(next((home / "checkpoints").iterdir()) / "scores.parquet")["id"]
        samples = [urlencode({"sample": one}) for one in (ids.iloc[0], ids.iloc[-1])]
        for path in (
            "/",
            "/Outlier_lab",
            "/Pseudo_labels?truth=1",
            "/Pseudo_labels?cluster=1",
            "/Embeddings",
            *(f"/Sample_votes?{one}" for one in samples),
            *(f"/Failures?{one}" for one in samples),
            "/Failures?f_show=alarms&t=0.001",
            *(f"/Results?{urlencode({VIEW_KEY: view})}" for view in VIEWS),
            "/Training?training=Watch",
            "/Training?training=Compare",
            "/Sample_votes?" + urlencode(dict.fromkeys(("sample", "set", "bundle", "k"), MARKUP)),
        ):
            page.goto(address + path)
            settle(page)
            _open_all(page)
            assert "Traceback" not in page.content(), path
            assert page.evaluate(SEEN) == [] and elsewhere == [], path
        # exports
        page.goto(f"{address}/Results?{VIEW_KEY}={REPORT}")
        settle(page)
        report = home / "report.html"
        with page.expect_download(timeout=patience(120_000)) as download:
            page.locator(".st-key-results_report button").click()
        download.value.save_as(report)
        page.goto(address + "/Failures")
        settle(page)
        with page.expect_download(timeout=patience(60_000)) as download:
            page.locator(".st-key-failures_export button").click()
        download.value.save_as(home / "notes.csv")
        assert elsewhere == [] and dialogs == []
        elsewhere.clear()
        page.goto(report.as_uri())
        page.wait_for_timeout(500)
        assert "evil.example" in page.content()  # as text
        assert page.evaluate(SEEN) == []
        assert [one for one in elsewhere if not one.startswith("file:")] == [] and dialogs == []
    text = (home / "notes.csv").read_text("utf-8-sig")
    rows = list(csv.reader(io.StringIO("".join(line for line in text.splitlines(True) if line[:1] != "#"))))
    assert len(rows) == 3
    numbers = ("score", "threshold")
    for row in rows[1:]:
        cells = dict(zip(rows[0], row, strict=True))
        assert not any(cell.startswith(CALCULATED) for key, cell in cells.items() if key not in numbers), cells


def _open_all(page: Page) -> None:
    """Opens what is folded."""
    page.evaluate("document.querySelectorAll('details:not([open]) > summary').forEach(one => one.click())")
    page.wait_for_timeout(300)
