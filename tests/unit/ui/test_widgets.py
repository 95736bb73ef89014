from __future__ import annotations

from streamlit.testing.v1 import AppTest


def _choice() -> None:
    import streamlit as st

    from sdviz.ui.widgets import choose_one

    st.text(choose_one("Which", ["one", "two"], "which"))


def test_one_option_is_always_chosen_the_first_at_the_start() -> None:
    at = AppTest.from_function(_choice).run()
    assert at.text[0].value == "one"
    at.session_state["which"] = "two"
    assert at.run().text[0].value == "two"


def test_a_kept_value_that_is_no_option_any_more_is_dropped() -> None:
    at = AppTest.from_function(_choice)
    at.session_state["which"] = "three"
    at.run()
    assert not at.exception
    assert at.text[0].value == "one"


def _empty() -> None:
    from sdviz.ui.widgets import empty_state

    empty_state("Nothing yet.", "Here you would see it.", "make it").caption("Then reload.")


def test_an_empty_state_says_what_would_be_here_and_how_to_get_it() -> None:
    at = AppTest.from_function(_empty).run()
    assert [one.value for one in at.markdown] == ["**Nothing yet.**", "Here you would see it."]
    assert at.code[0].value == "make it"
    assert at.caption[0].value == "Then reload."
