"""Where people sign in, notes keep who wrote them, and nobody else may change anything."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from tests.patience import patience

APP = Path(__file__).resolve().parents[2] / "app.py"
FAILURES = "pages/5_Failures.py"


def open_as(user: dict[str, Any], sample: str) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=patience(120))
    at.user = user
    at.query_params["sample"] = sample
    at.switch_page(FAILURES)
    at.run()
    assert not at.exception, at.exception
    return at


def captions(at: AppTest) -> str:
    return " | ".join(str(one.value) for one in at.caption).replace("\\", "")


@pytest.fixture
def sample(full_bundle: Callable[..., Path]) -> str:
    return str(pq.read_table(full_bundle() / "scores.parquet")["id"][0])


def test_a_note_keeps_and_shows_who_wrote_it(sample: str, tmp_path: Path) -> None:
    ada = {"is_logged_in": True, "email": "ada@example.org", "name": "Ada"}
    at = open_as(ada, sample)
    at.text_area[0].set_value("a ring").run()
    assert ", by ada@example.org." in captions(at)
    assert "sign_out" in [button.key for button in at.button]
    with sqlite3.connect(tmp_path / "sdviz_runs" / "notes.sqlite") as db:
        assert db.execute("SELECT note, author FROM notes").fetchall() == [("a ring", "ada@example.org")]
    # another person's change is theirs
    bob = open_as({"is_logged_in": True, "name": "Bob *"}, sample)
    assert ", by ada@example.org." in captions(bob)
    bob.text_area[0].set_value("no ring").run()
    assert ", by Bob *." in captions(bob)


def test_without_a_sign_in_nothing_is_written(sample: str, tmp_path: Path) -> None:
    at = open_as({"is_logged_in": False}, sample)
    assert at.text_area[0].disabled and "Sign in, at the left" in captions(at)
    assert "sign_in" in [button.key for button in at.button]
    assert not (tmp_path / "sdviz_runs" / "notes.sqlite").exists()


def test_where_nobody_signs_in_a_note_has_no_author(sample: str, tmp_path: Path) -> None:
    at = open_as({"email": "test@example.com"}, sample)
    at.text_area[0].set_value("a ring").run()
    assert "UTC beside the runs." in captions(at)
    assert not {"sign_in", "sign_out"} & {button.key for button in at.button}
