"""The page Training: start a run, watch it, compare two runs."""

import streamlit as st

from sdviz import runs
from sdviz.ui.assets import style
from sdviz.ui.guests import refusal
from sdviz.ui.training.compare import show_compare
from sdviz.ui.training.new_run import show_new_run
from sdviz.ui.training.state import COMPARE, NEW, VIEW_KEY, VIEWS, WATCH, take_problem
from sdviz.ui.training.watch import show_watch
from sdviz.ui.widgets import IN_LINK, empty_state


def show_training() -> None:
    """Draws the page below its title."""
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
        label_visibility="collapsed",
        **IN_LINK,
    )
    if view == NEW and refusal():
        st.caption("Here is the form of a new run, for those who may start one.")
    elif view == NEW:
        show_new_run(found)
    elif view == COMPARE:
        show_compare(found)
    elif found:
        show_watch(found)
    else:
        _no_runs()


def _no_runs() -> None:
    box = empty_state(
        "There is no run yet.",
        "Here you would see each stage of a run with its bar and the time left, the losses falling, "
        "the first outliers as they are made, and the log. A run goes on when the browser is closed, "
        "can be stopped and resumed, and ends in a bundle that the other pages open.",
    )
    box.button("Start one", icon=":material/add:", type="primary", on_click=_to_new)
    box.caption("Or on the command line:")
    box.code("python -m sdviz run configs/shapes-tiny.yaml", language="bash")


def _to_new() -> None:
    st.session_state[VIEW_KEY] = NEW
