from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

RESULTS, FAILURES, VOTES = "pages/6_Results.py", "pages/5_Failures.py", "pages/4_Sample_votes.py"
Full = Callable[..., Path]
Open = Callable[..., AppTest]


def link(at: AppTest, key: str) -> str:
    value = at.query_params.get(key, "")
    return value[-1] if isinstance(value, list) else value


def refusal(at: AppTest) -> str:
    return next((one.value for one in at.main.warning if one.value.startswith("Not taken from the link")), "")


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_bundle_that_a_link_names_stays_in_the_link(name: str, full_bundle: Full, open_page: Open) -> None:
    """Also the one that opens by default: another machine may open another one."""
    full_bundle("a"), full_bundle("b", sets=("digits",))
    at = open_page(RESULTS, {"bundle": name})
    assert at.selectbox(key="bundle").value == link(at, "bundle") == name
    at.switch_page(FAILURES)
    at.run()
    assert not at.exception
    assert at.selectbox(key="bundle").value == link(at, "bundle") == name


def test_a_bundle_that_was_chosen_stays_in_the_link(full_bundle: Full, open_page: Open) -> None:
    full_bundle("a"), full_bundle("b", sets=("digits",))
    at = open_page(RESULTS)
    assert link(at, "bundle") == ""
    for name in ("b", "a"):
        at.selectbox(key="bundle").select(name).run()
        assert not at.exception and link(at, "bundle") == name


def test_a_bundle_that_is_not_there_is_named(full_bundle: Full, open_page: Open) -> None:
    full_bundle("a")
    at = open_page(RESULTS, {"bundle": "nobody"})
    assert "bundle = `nobody`" in " ".join(one.value for one in at.sidebar.caption)
    assert at.selectbox(key="bundle").value == "a" and link(at, "bundle") == ""


def test_another_bundle_keeps_the_image_that_it_knows_and_says_what_it_drops(
    full_bundle: Full, open_page: Open
) -> None:
    table = pd.read_parquet(full_bundle("a") / "scores.parquet")
    full_bundle("b", sets=("digits",))
    one = table[table["set"] == "digits"]["id"].iloc[3]
    at = open_page(VOTES, {"sample": one, "set": "shapes-novel", "t": "0.4", "k": "3"})
    at.selectbox(key="bundle").select("b").run()
    assert not at.exception
    assert link(at, "sample") == one
    assert [link(at, key) for key in ("set", "t", "k")] == ["", "", ""]
    text = "Dropped with the bundle before: the threshold, k, the set `shapes-novel`."
    assert [toast.value for toast in at.toast] == [text]
    at.run()
    assert not at.toast


def test_another_bundle_drops_an_image_that_nobody_knows(full_bundle: Full, open_page: Open) -> None:
    full_bundle("a"), full_bundle("b", sets=("digits",))
    at = open_page(VOTES, {"sample": "nothing/1"})
    at.selectbox(key="bundle").select("b").run()
    assert link(at, "sample") == "" and "the image `nothing/1`" in at.toast[0].value


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ({"k": "999999"}, "k = `999999` (here: a whole number from 1 to 50)"),
        ({"k": "-7"}, "k = `-7`"),
        ({"k": "2.5"}, "k = `2.5`"),
        ({"alpha": "1e99"}, "alpha = `1e99` (here: from 0 to 10)"),
        ({"alpha": "-5"}, "alpha = `-5`"),
        ({"alpha": "nan"}, "alpha = `nan`"),
        ({"unit": "yes"}, "unit = `yes` (here: 1 or 0)"),
        ({"t": "1e308"}, "t = `1e308` (here: from 0 to 40.1, above which no score can be)"),
        ({"t": "-5"}, "t = `-5`"),
        ({"t": "1e308", "unit": "0"}, "t = `1e308`"),
    ],
)
def test_settings_that_cannot_be_are_named_and_the_bundles_own_stand(
    query: dict[str, str], texts: str, full_bundle: Full, open_page: Open
) -> None:
    full_bundle()
    at = open_page(VOTES, query)
    assert texts in refusal(at)
    assert all(link(at, key) == "" for key in query if f"{key} =" in texts)
    assert at.slider(key="votes_k").value == 10 and at.number_input(key="votes_alpha").value == 0.01


def test_settings_that_can_be_are_taken_without_a_word(full_bundle: Full, open_page: Open) -> None:
    full_bundle()
    query = {"k": "50", "alpha": "0.0005", "unit": "1", "t": "0"}
    at = open_page(VOTES, query)
    assert not refusal(at) and {key: link(at, key) for key in query} == query
    box = at.number_input(key="votes_alpha")
    assert box.value == 0.0005 and box.proto.format == "%g"


def test_the_slider_of_failures_says_what_the_text_says(full_bundle: Full, open_page: Open) -> None:
    table = pd.read_parquet(full_bundle() / "scores.parquet")
    known = table[table["role"] == "id"]["total"]
    for t in (0.0, float(known.median()), float(known.nlargest(8).iloc[-1]) - 1e-9):
        at = open_page(FAILURES, {"t": repr(t)})
        share = 100 * float((known <= t).mean())
        assert at.slider(key="failures_recall").value == round(share, 2)
        assert f"{share:.2f} % of" in " ".join(one.value for one in at.markdown)
