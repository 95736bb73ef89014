"""What README, CONTRIBUTING and docs point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "bench/README.md",
]
# not X.py, <page>/ or N_Name.py, which stand for any
PATH = re.compile(r"`((?:sdviz|tests|bench|configs|docs|checkpoints|pages)/[\w./-]*\w)/?`")
PLACEHOLDERS = {"X", "N_Name"}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")


def missing(page: Path) -> list[str]:
    """Paths in code and targets of links that a page names in vain."""
    text = page.read_text("utf-8")
    named = [ROOT / one for one in PATH.findall(text) if Path(one).stem not in PLACEHOLDERS]
    linked = [page.parent / one for one in LINK.findall(text)]
    return [str(one) for one in (*named, *linked) if not one.exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    assert missing(page) == []


def test_a_dead_path_and_a_dead_link_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`sdviz/nn/unet.py`, `sdviz/nn/none.py`, [a](page.md#top), [b](b.md), [c](https://d.org)", "utf-8"
    )
    assert missing(page) == [str(ROOT / "sdviz/nn/none.py"), str(tmp_path / "b.md")]


def test_the_readme_is_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130
