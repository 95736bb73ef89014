from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import Page
from safetensors.numpy import load_file

pytestmark = pytest.mark.browser
Open = Callable[..., Page]
NEAR, MIXED, ALONG = (f".st-key-votes_{name} button.cell" for name in ("near_id", "near_mixed", "along"))
ALPHA = 0.01


class Hand:
    """Eq. 6 of every scored image of a bundle, every distance computed with numpy."""

    def __init__(self, folder: Path) -> None:
        self.table = pd.read_parquet(folder / "scores.parquet")
        banks, sets = load_file(folder / "features.safetensors"), load_file(folder / "ood_features.safetensors")
        rows = pd.read_parquet(folder / "features.parquet")
        self.ids, self.outlier_ids = (rows["id"][rows["role"] == one].to_numpy() for one in ("id", "outlier"))
        self.queries = np.concatenate([sets[name] for name in self.table["set"].unique()]).astype(float)
        self.banks = [banks[f"{one}_features"].astype(float) for one in ("id", "outlier")]
        self.known = (self.table["role"] == "id").to_numpy()

    def distances(self, unit: bool) -> tuple[np.ndarray, np.ndarray]:
        """To every ID image and to every outlier of the banks."""
        ready = [
            x / np.linalg.norm(x, axis=1, keepdims=True) if unit else x for x in (self.queries, *self.banks)
        ]
        to_id, to_outliers = (np.linalg.norm(ready[0][:, None] - bank[None], axis=2) for bank in ready[1:])
        return to_id, to_outliers

    def score(self, k: int, alpha: float = ALPHA, unit: bool = True) -> tuple[np.ndarray, np.ndarray, float]:
        """The distance part and the votes of each image, and the threshold that 95 % of ID images pass."""
        to_id, to_outliers = self.distances(unit)
        distance = (np.sort(to_id, axis=1)[:, :k] ** 2).sum(1)
        nearest = np.argsort(np.concatenate([to_id, to_outliers], axis=1), axis=1, kind="stable")[:, :k]
        votes = (nearest >= to_id.shape[1]).sum(1)
        known = np.sort((distance + alpha * votes)[self.known])
        return distance, votes, float(known[math.ceil(round(0.95 * len(known), 6)) - 1])


@pytest.fixture
def by_hand(full_server: str, full_folder: Path) -> Hand:
    """Of the bundle that the server shows."""
    return Hand(full_folder / "checkpoints" / "full")


def numbers(page: Page) -> list[float]:
    """Distance part, vote part, score and threshold; NaN for one that is still searched for."""
    shown = page.locator(".votes-sum b").all_inner_texts()
    return [math.nan if one == "..." else float(one) for one in shown]


def wait_for_sum(page: Page, distance: float, votes: int, threshold: float, alpha: float = ALPHA) -> None:
    """Waits until the page shows this sum, to its four decimals, and the verdict that follows from it."""
    total = distance + alpha * votes
    expected = [distance, alpha * votes, total, threshold]
    for _ in range(100):
        shown = numbers(page)
        if len(shown) == 4 and np.allclose(shown, expected, rtol=0, atol=2e-4):
            break
        page.wait_for_timeout(100)
    assert numbers(page) == pytest.approx(expected, abs=2e-4)
    verdict = page.locator("h3", has_text="Called OOD" if total > threshold else "Passes as ID")
    verdict.wait_for()
    assert (
        page.locator("h3", has_text="Called OOD").or_(page.locator("h3", has_text="Passes as ID")).count() == 1
    )


def wait_for_image(page: Page, one: str) -> None:
    page.locator(f".st-key-votes_picture img[alt='{one}']").wait_for()
    page.wait_for_url(lambda url: f"sample={one}".replace("/", "%2F") in url)


def test_the_verdict_follows_k_alpha_and_unit_length(full_page: Open, by_hand: Hand) -> None:
    at_10, at_8 = by_hand.score(10), by_hand.score(8)
    above = [distance + ALPHA * votes > t for distance, votes, t in (at_10, at_8)]
    # one that is called otherwise with k = 8
    row = int(np.flatnonzero(above[0] != above[1])[0])
    one = by_hand.table["id"][row]
    page = full_page(f"/Sample_votes?sample={one}", wait_for=NEAR)
    wait_for_sum(page, at_10[0][row], at_10[1][row], at_10[2])
    thumb = page.locator(".st-key-votes_k input[type=range]").first
    thumb.focus()
    thumb.press("ArrowLeft")
    thumb.press("ArrowLeft")
    wait_for_sum(page, at_8[0][row], at_8[1][row], at_8[2])
    page.wait_for_url("**k=8*")
    page.get_by_text("The 8 nearest ID images make the distance part").wait_for()
    assert page.locator(NEAR).count() == 8

    # alpha and the length of the features
    field = page.locator(".st-key-votes_alpha input")
    field.fill("0.5")
    field.press("Enter")
    distance, votes, t = by_hand.score(8, 0.5)
    wait_for_sum(page, distance[row], votes[row], t, 0.5)
    page.locator(".st-key-votes_unit label").click()
    distance, votes, t = by_hand.score(8, 0.5, unit=False)
    wait_for_sum(page, distance[row], votes[row], t, 0.5)
    # the link alone brings the same, and the button the bundle's own
    page.wait_for_url("**unit=0*")
    page.reload()
    wait_for_sum(page, distance[row], votes[row], t, 0.5)
    page.get_by_role("button", name="The bundle's own").click()
    wait_for_sum(page, at_10[0][row], at_10[1][row], at_10[2])
    page.wait_for_url(lambda url: "alpha=" not in url and "unit=" not in url)


def test_a_click_on_a_picture_opens_that_image(full_page: Open, by_hand: Hand) -> None:
    votes = by_hand.score(10)[1]
    row = int(np.flatnonzero((votes > 2) & (votes < 8))[0])
    to_id, to_outliers = by_hand.distances(True)
    nearest = by_hand.ids[np.argsort(to_id[row], kind="stable")[:10]].tolist()
    voting = by_hand.outlier_ids[np.argsort(to_outliers[row], kind="stable")[: votes[row]]].tolist()
    start = by_hand.table["id"][row]
    page = full_page(f"/Sample_votes?sample={start}", wait_for=NEAR)
    # 1. a neighbour, by the mouse
    assert page.locator(NEAR).evaluate_all("all => all.map(e => e.dataset.id)") == nearest
    page.locator(NEAR).nth(2).click()
    wait_for_image(page, nearest[2])
    page.get_by_text("it is of the ID bank").wait_for()
    assert page.locator(".st-key-votes_id input").input_value() == nearest[2]
    # 2. back by the browser's own way, then a vote, by the keyboard
    field = page.locator(".st-key-votes_id input")
    field.fill(start)
    field.press("Enter")
    wait_for_image(page, start)
    page.locator(f"{MIXED}[data-id='{voting[0]}']").wait_for()
    shown = page.locator(MIXED, has_text="✓ vote").evaluate_all("all => all.map(e => e.dataset.id)")
    assert shown == voting
    vote = page.locator(f"{MIXED}[data-id='{voting[0]}']").first
    vote.focus()
    vote.press("Enter")
    wait_for_image(page, voting[0])
    page.get_by_text("it is of the outlier bank").wait_for()
    # 3. the strip and its arrows go through a set in the order that is chosen
    field.fill(start)
    field.press("Enter")
    wait_for_image(page, start)
    strip = page.locator(".st-key-votes_strip button.cell")
    page.locator(f".st-key-votes_strip button.cell.chosen[data-id='{start}']").wait_for()
    ids = strip.evaluate_all("all => all.map(e => e.dataset.id)")
    at = ids.index(start)
    step, name = (1, "next") if at + 1 < len(ids) else (-1, "previous")
    page.locator(f".st-key-votes_{name} button").first.click()
    wait_for_image(page, ids[at + step])
    # 4. Failures has the same image
    page.get_by_role("link", name="Failures").click()
    page.locator("h1", has_text="Failures").wait_for()
    page.wait_for_url(lambda url: f"sample={ids[at + step]}".replace("/", "%2F") in url)


def test_an_upload_is_opened(full_page: Open, by_hand: Hand, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 64, 3), np.uint8)).save(
        tmp_path / "mine.png"
    )
    page = full_page("/Sample_votes", wait_for=NEAR)
    page.get_by_role("button", name="Upload").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.locator(".st-key-votes_picture img[alt^='upload/']").wait_for()
    page.get_by_text("an image of your own").wait_for()
    assert len(numbers(page)) == 4


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (1024, True)])
def test_nothing_sticks_out(
    full_page: Open,
    by_hand: Hand,
    sticking_out: Callable[[Page], list[str]],
    faint: Callable[[Page], list[str]],
    is_dark: Callable[[Page], bool],
    width: int,
    dark: bool,
) -> None:
    votes = by_hand.score(10)[1]
    one = by_hand.table["id"][int(np.flatnonzero(votes == 5)[0])]
    page = full_page(f"/Sample_votes?sample={one}", dark, width, wait_for=MIXED)
    # what the heads say, and where the image lies
    for row in range(2):
        page.locator("[data-testid=stVegaLiteChart]").nth(row).locator("svg, canvas").first.wait_for()
    assert is_dark(page) == dark
    assert sticking_out(page) == [] == faint(page)
    # pictures 2 to 6 times their own size, pixel by pixel
    for place in (".st-key-votes_picture .cell", ".st-key-votes_strip .cell", NEAR, MIXED):
        style = page.locator(f"{place} img").first.evaluate(
            "e => [getComputedStyle(e).imageRendering, e.clientWidth, e.naturalWidth]"
        )
        assert style[0] == "pixelated" and style[2] == 32 and style[1] in (64, 96, 128, 160, 192)
    page.locator(".st-key-votes_make label").click()
    page.locator(ALONG).first.wait_for()
    page.locator(".st-key-votes_curve .js-line").nth(1).wait_for()
    assert sticking_out(page) == [] == faint(page)
    # a click on a picture along S sets S there
    cell = page.locator(f"{ALONG}:not(.chosen)").nth(1)
    s = cell.get_attribute("data-id")
    cell.click()
    page.locator(f"{ALONG}.chosen[data-id='{s}']").wait_for()
    page.get_by_text(f"S = {s}", exact=True).first.wait_for()
    # the gallery
    page.get_by_role("button", name="Gallery").click()
    page.locator(".st-key-votes_gallery button.cell").first.wait_for()
    assert sticking_out(page) == [] == faint(page)
    assert "Traceback" not in page.content()
