"""The training page: start a run, watch it, compare two."""

from __future__ import annotations

import streamlit as st

from sdviz import runs
from sdviz.ui.assets import style
from sdviz.ui.page import PageContext
from sdviz.ui.training.actions import refusal
from sdviz.ui.training.compare import show_compare
from sdviz.ui.training.new_run import show_new_run
from sdviz.ui.training.state import COMPARE, NEW, VIEW_KEY, VIEWS, WATCH, take_problem
from sdviz.ui.training.watch import show_watch


def show_training(context: PageContext) -> None:
    """The page below its title."""
    st.html(style(__name__))
    if line := refusal():
        st.info(line, icon=":material/visibility:")
    if problem := take_problem():
        st.error(problem)
    found = runs.list_runs()[::-1]
    view = st.segmented_control(
        "View",
        VIEWS,
        default=None if VIEW_KEY in st.session_state else (WATCH if found else NEW),
        required=True,
        key=VIEW_KEY,
        bind="query-params",
        persist_state="session",
        label_visibility="collapsed",
    )
    if view == NEW:
        show_new_run(found)
    elif view == COMPARE:
        show_compare(found)
    elif found:
        show_watch(found)
    else:
        _no_runs()


def _no_runs() -> None:
    with st.container(border=True):
        st.markdown("**There is no run yet.**")
        st.markdown(
            "Here you would see each stage of a run with its bar and the time left, the losses falling, "
            "the first outliers as they are made, and the log. A run goes on when the browser is closed, "
            "can be stopped and resumed, and ends in a bundle that the other pages open."
        )
        st.button("Start one", icon=":material/add:", type="primary", on_click=_to_new)
        st.caption("Or on the command line:")
        st.code("python -m sdviz run configs/shapes-tiny.yaml", language="bash")


def _to_new() -> None:
    st.session_state[VIEW_KEY] = NEW
